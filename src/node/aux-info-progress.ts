import type { Round } from "../session/protocol.js";

/** How far one wallet's auxiliary info is at this node. */
export interface AuxInfoProgress {
  readonly walletId: string;
  /** Steps whose messages were sent, 0 to `steps`. */
  readonly step: number;
  readonly steps: number;
}

/** The wallets whose auxiliary info is being made now, for people who wait. */
export class AuxInfoBoard {
  readonly #running = new Map<string, AuxInfoProgress>();

  get running(): readonly AuxInfoProgress[] {
    return [...this.#running.values()];
  }

  /** Follows one session: tell `onRound` which round it waits for, and `end` when it is over. */
  follow(walletId: string, rounds: readonly Round[]) {
    const stepOf = new Map(rounds.map(({ id, step }) => [id, step]));
    const steps = Math.max(...stepOf.values());
    const show = (step: number): void => void this.#running.set(walletId, { walletId, step, steps });
    show(0);
    return {
      /** A round that the protocol does not know, such as a dispute's, changes nothing. */
      onRound: (round: string): void => {
        const step = stepOf.get(round);
        if (step !== undefined) show(step);
      },
      end: (): void => void this.#running.delete(walletId),
    };
  }
}
