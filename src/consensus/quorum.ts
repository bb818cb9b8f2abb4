/** How many votes decide. n = parties of the wallet, t = its signing threshold, f = faults that are tolerated. */
export interface Electorate {
  readonly parties: number;
  readonly threshold: number;
}

/** f = ⌊(n-1)/3⌋ */
export function toleratedFaults(parties: number): number {
  return Math.floor((parties - 1) / 3);
}

/** Approvals that make a certificate: max(t, 2f+1). */
export function approvalsNeeded({ parties, threshold }: Electorate): number {
  return Math.max(threshold, 2 * toleratedFaults(parties) + 1);
}

/**
 * Rejections after which approval is out of reach: n - needed + 1. That is the blueprint's n-t+1 whenever
 * t ≥ 2f+1, and less otherwise: waiting for votes that can no longer help would only delay the answer.
 */
export function rejectionsNeeded(electorate: Electorate): number {
  return electorate.parties - approvalsNeeded(electorate) + 1;
}
