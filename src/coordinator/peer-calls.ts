import { type Client, createClient } from "@connectrpc/connect";
import type { Ballot, PaymentProposal } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  ConsensusService,
  ControlService,
  Scheme as SchemeMessage,
  SessionService,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { Unavailable } from "../crypto/fault.js";
import { faultFromWire } from "../network/fault-wire.js";
import type { PeerMesh } from "../network/peer-mesh.js";
import { decodePublicKeyPackage, keyDigest } from "../protocols/key-share.js";
import type { GeneratedKey, KeyGeneration, KeyGenerationOrder } from "../wallet/key-generation.js";
import type {
  AuxInfoOrder,
  PeerPresigning,
  PresigningProgress,
  PresignOrder,
  WaitingPresignature,
} from "../wallet/peer-presigning.js";
import type { PeerSigning, SigningAnswer, SigningOrder } from "../wallet/peer-signing.js";
import type { PaymentOutcome, PeerVoting } from "../wallet/peer-voting.js";
import type { Scheme } from "../wallet/wallet-application.js";

const SCHEMES: Readonly<Record<Scheme, SchemeMessage>> = {
  frost: SchemeMessage.FROST,
  cggmp24: SchemeMessage.CGGMP24,
};

/** The wallet layer's questions to nodes, as calls over the mesh. What a node answers with becomes a fault again. */
export class PeerCalls implements PeerVoting, PeerSigning, KeyGeneration, PeerPresigning {
  readonly #mesh: Pick<PeerMesh, "transport">;
  readonly #control = new Map<string, Client<typeof ControlService>>();
  readonly #consensus = new Map<string, Client<typeof ConsensusService>>();
  readonly #signing = new Map<string, Client<typeof SessionService>>();
  readonly #presigning = new Map<string, Client<typeof SessionService>>();
  readonly #keygen = new Map<string, Client<typeof SessionService>>();

  constructor(mesh: Pick<PeerMesh, "transport">) {
    this.#mesh = mesh;
  }

  async vote(nodeId: string, proposal: PaymentProposal, signal: AbortSignal): Promise<Ballot> {
    return await this.#call(nodeId, signal, async (own) => {
      const client = remembered(this.#consensus, nodeId, () =>
        createClient(ConsensusService, this.#mesh.transport(nodeId)),
      );
      const { ballot } = await client.vote({ proposal }, { signal: own });
      if (ballot === undefined)
        throw new Unavailable("ballot-missing", `${nodeId} answered without a ballot`, { peer: nodeId });
      return ballot;
    });
  }

  async notify(nodeId: string, outcome: PaymentOutcome, signal: AbortSignal): Promise<void> {
    const { requestId, txid } = outcome;
    await this.#call(nodeId, signal, async (own) => {
      const client = remembered(this.#consensus, nodeId, () =>
        createClient(ConsensusService, this.#mesh.transport(nodeId)),
      );
      await client.notify({ requestId, txid, confirmedHeight: BigInt(outcome.confirmedHeight) }, { signal: own });
    });
  }

  async sign(nodeId: string, order: SigningOrder, signal: AbortSignal): Promise<SigningAnswer> {
    const { sessionId, proposal, certificate, walletEpoch } = order;
    const epoch = walletEpoch === undefined ? {} : { walletEpoch };
    const [signers, presignatureIds] = [[...order.signers], [...order.presignatureIds]];
    return await this.#call(nodeId, signal, async (own) => {
      const client = remembered(this.#signing, nodeId, () =>
        createClient(SessionService, this.#mesh.transport(nodeId, "signing")),
      );
      const request = { sessionId, proposal, certificate, signers, presignatureIds, ...epoch };
      return await client.signPayment(request, { signal: own });
    });
  }

  async generate(nodeId: string, order: KeyGenerationOrder, signal: AbortSignal): Promise<GeneratedKey> {
    const { sessionId, walletId, name, threshold, parties, network } = order;
    const wallet = { walletId, name, scheme: SCHEMES[order.scheme], threshold, parties: [...parties], network };
    return await this.#call(nodeId, signal, async (own) => {
      const key = await this.#ceremonies(nodeId).generateKey({ sessionId, wallet }, { signal: own });
      if (!matchesDigest(key)) {
        throw new Unavailable("key-package", `${nodeId} answered with a key that its digest is not of`, {
          peer: nodeId,
        });
      }
      return key;
    });
  }

  async prepareAuxInfo(nodeId: string, walletId: string, signal: AbortSignal): Promise<void> {
    await this.#call(nodeId, signal, async (own) => {
      await this.#ceremonies(nodeId).prepareAuxInfo({ walletId }, { signal: own });
    });
  }

  async progress(nodeId: string, signal: AbortSignal): Promise<PresigningProgress> {
    return await this.#call(nodeId, signal, async (own) => {
      const { primes, auxInfo } = await this.#controlOf(nodeId).getStatus({}, { signal: own });
      const { ready = 0, found = 0, tested = 0 } = primes ?? {};
      return { primes: { ready, found, tested }, auxInfo };
    });
  }

  async generateAuxInfo(nodeId: string, order: AuxInfoOrder, signal: AbortSignal): Promise<Uint8Array> {
    return await this.#call(nodeId, signal, async (own) => {
      const { epochId } = await this.#ceremonies(nodeId).generateAuxInfo({ ...order }, { signal: own });
      return epochId;
    });
  }

  async presign(nodeId: string, order: PresignOrder, signal: AbortSignal): Promise<readonly Uint8Array[]> {
    return await this.#call(nodeId, signal, async (own) => {
      const request = { ...order, signers: [...order.signers] };
      const { presignatureIds } = await this.#pool(nodeId).presign(request, { signal: own });
      return presignatureIds;
    });
  }

  async waiting(nodeId: string, walletId: string, signal: AbortSignal): Promise<readonly WaitingPresignature[]> {
    return await this.#call(nodeId, signal, async (own) => {
      const { presignatures } = await this.#pool(nodeId).listPresignatures({ walletId }, { signal: own });
      return presignatures;
    });
  }

  #controlOf(nodeId: string): Client<typeof ControlService> {
    return remembered(this.#control, nodeId, () => createClient(ControlService, this.#mesh.transport(nodeId)));
  }

  #ceremonies(nodeId: string): Client<typeof SessionService> {
    return remembered(this.#keygen, nodeId, () => createClient(SessionService, this.#mesh.transport(nodeId, "dkg")));
  }

  /** Filling pools gives way to everything else. */
  #pool(nodeId: string): Client<typeof SessionService> {
    return remembered(this.#presigning, nodeId, () =>
      createClient(SessionService, this.#mesh.transport(nodeId, "presign")),
    );
  }

  /** Round trip through the whole RPC path. @throws Unavailable or PeerSilent */
  async ping(nodeId: string, timeoutMs: number): Promise<void> {
    await this.#call(nodeId, undefined, async (own) => {
      await this.#controlOf(nodeId).ping({ payload: new Uint8Array() }, { timeoutMs, signal: own });
    });
  }

  #call<T>(nodeId: string, signal: AbortSignal | undefined, call: (own: AbortSignal) => Promise<T>): Promise<T> {
    return callPeer(nodeId, signal, call);
  }
}

/** Makes a call whose error becomes a fault again. */
export async function callPeer<T>(
  nodeId: string,
  signal: AbortSignal | undefined,
  call: (own: AbortSignal) => Promise<T>,
): Promise<T> {
  try {
    return await call(signal ?? new AbortController().signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw faultFromWire(error, nodeId);
  }
}

/** True when the package is the one that the digest names and says the same about the key. */
function matchesDigest(key: GeneratedKey): boolean {
  try {
    const known = decodePublicKeyPackage(key.publicKeyPackage);
    return (
      equalBytes(keyDigest(known), key.keyDigest) &&
      equalBytes(known.groupKey.toBytes(), key.groupKey) &&
      equalBytes(known.chainCode, key.chainCode)
    );
  } catch {
    return false;
  }
}

/** One client for each node, made when it is first needed. */
export function remembered<T>(clients: Map<string, T>, nodeId: string, create: () => T): T {
  const known = clients.get(nodeId);
  if (known !== undefined) return known;
  const client = create();
  clients.set(nodeId, client);
  return client;
}
