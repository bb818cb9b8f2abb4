import type { Point as PointMessage, Scalar as ScalarMessage } from "../../gen/mpcwallet/crypto/v1/elements_pb.js";
import { Point, Scalar } from "../crypto/curve.js";

/** Whether the message holds a point on the curve that is not the identity. Total. */
export function isPoint(message: PointMessage | undefined): boolean {
  try {
    Point.fromProto(message);
    return true;
  } catch {
    return false;
  }
}

/** Whether the message holds a canonical scalar. Total. */
export function isScalar(message: ScalarMessage | undefined): boolean {
  try {
    Scalar.fromProto(message);
    return true;
  } catch {
    return false;
  }
}
