/** Kinds of call that must not wait for each other: each has a stream priority and a concurrency limit of its own. */
export type TrafficClass = "control" | "signing" | "dkg" | "presign";

/** Most urgent first. Votes and pings are control; a payment being signed comes before key generation and pool filling. */
export const TRAFFIC_CLASSES: readonly TrafficClass[] = ["control", "signing", "dkg", "presign"];

/** Header field that carries the class, so that both ends give the stream the same priority. */
export const TRAFFIC_CLASS_FIELD = "traffic-class";

/** Position of a class in TRAFFIC_CLASSES; an unknown name is the least urgent, so a peer cannot invent a faster one. */
export function trafficRank(name: string): number {
  const rank = (TRAFFIC_CLASSES as readonly string[]).indexOf(name);
  return rank < 0 ? TRAFFIC_CLASSES.length - 1 : rank;
}

/** Urgency of a QUIC stream, 0 to 255, lower is sooner. */
export function streamUrgency(rank: number): number {
  return 32 * (rank + 1);
}
