import { type Client, createClient } from "@connectrpc/connect";
import type { AbandonedStatement, SwitchCertificate } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { WalletChangeService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { Unavailable } from "../crypto/fault.js";
import type { PeerMesh } from "../network/peer-mesh.js";
import type {
  ChangeAttempt,
  ChangeCheck,
  ChangeSession,
  PeerWalletChange,
  ShareStatus,
} from "../wallet/peer-wallet-change.js";
import { callPeer, remembered } from "./peer-calls.js";

/** The wallet layer's questions about changes of shares, as calls over the mesh. */
export class ChangeCalls implements PeerWalletChange {
  readonly #mesh: Pick<PeerMesh, "transport">;
  readonly #control = new Map<string, Client<typeof WalletChangeService>>();
  readonly #sessions = new Map<string, Client<typeof WalletChangeService>>();

  constructor(mesh: Pick<PeerMesh, "transport">) {
    this.#mesh = mesh;
  }

  shareStatus(nodeId: string, walletId: string, signal: AbortSignal): Promise<ShareStatus> {
    return callPeer(nodeId, signal, async (own) => {
      const answer = await this.#controlOf(nodeId).getWalletChange({ walletId }, { signal: own });
      const { holds, epoch, switched, pending } = answer;
      const change = pending?.change;
      return {
        holds,
        epoch,
        switched,
        pending: pending && change && { ...pending, change, statement: pending.statement },
      };
    });
  }

  checkChange(nodeId: string, { change, base }: ChangeCheck, signal: AbortSignal): Promise<void> {
    return callPeer(nodeId, signal, async (own) => {
      await this.#sessionsOf(nodeId).checkWalletChange({ change, base: baseMessage(base) }, { signal: own });
    });
  }

  prepareChange(nodeId: string, order: ChangeSession, signal: AbortSignal): Promise<void> {
    const { sessionId, change, attempt, base, dealers } = order;
    return callPeer(nodeId, signal, async (own) => {
      const request = { sessionId, change, attempt, base: baseMessage(base), dealers: [...dealers] };
      await this.#sessionsOf(nodeId).prepareWalletChange(request, { signal: own });
    });
  }

  abandonChange(nodeId: string, attempt: ChangeAttempt, signal: AbortSignal): Promise<AbandonedStatement> {
    return callPeer(nodeId, signal, async (own) => {
      const { statement } = await this.#controlOf(nodeId).abandonWalletChange({ ...attempt }, { signal: own });
      if (statement !== undefined) return statement;
      throw new Unavailable("statement-missing", `${nodeId} answered without a statement`, { peer: nodeId });
    });
  }

  dropChange(
    nodeId: string,
    abandoned: Parameters<PeerWalletChange["dropChange"]>[1],
    signal: AbortSignal,
  ): Promise<void> {
    return callPeer(nodeId, signal, async (own) => {
      await this.#controlOf(nodeId).dropWalletChange({ ...abandoned }, { signal: own });
    });
  }

  switchWallet(nodeId: string, certificate: SwitchCertificate, signal: AbortSignal): Promise<void> {
    return callPeer(nodeId, signal, async (own) => {
      await this.#controlOf(nodeId).switchWallet({ certificate }, { signal: own });
    });
  }

  #controlOf(nodeId: string): Client<typeof WalletChangeService> {
    return remembered(this.#control, nodeId, () => createClient(WalletChangeService, this.#mesh.transport(nodeId)));
  }

  #sessionsOf(nodeId: string): Client<typeof WalletChangeService> {
    return remembered(this.#sessions, nodeId, () =>
      createClient(WalletChangeService, this.#mesh.transport(nodeId, "dkg")),
    );
  }
}

const baseMessage = ({ publicKeyPackage, parties }: ChangeCheck["base"]) => ({
  publicKeyPackage,
  parties: [...parties],
});
