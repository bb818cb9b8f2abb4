import { createClient, type HandlerContext } from "@connectrpc/connect";
import {
  CertificateService,
  type RenewRequest,
  type SyncRevocationsRequest,
} from "../../gen/mpcwallet/pki/v1/pki_pb.js";
import type { PkiHandlers } from "../../gen/router.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { peerChain, peerNodeId } from "../network/call-context.js";
import { faultFromWire, faultToWire } from "../network/fault-wire.js";
import {
  CertificateRenewal,
  type CertificateRenewalOptions,
  type RenewalOutcome,
  type RenewalSource,
} from "../network/identity/certificate-renewal.js";
import type { RenewalAuthority } from "../network/identity/renewal-authority.js";
import type { Roster } from "../network/identity/roster.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { PeerMesh } from "../network/peer-mesh.js";
import { type Logger, networkLog } from "./log.js";
import { RevocationSpread, type SharedRevocations } from "./revocation-spread.js";

const RENEW_TIMEOUT_MS = 15_000;

/** Where this process's certificate lies, so that it can be renewed. */
export type OwnCertificate = CertificateRenewalOptions;

export interface CertificateLifeOptions {
  readonly nodeId: string;
  readonly roster: Roster;
  readonly trust: TrustFiles;
  readonly trustReloadIntervalMs: number;
  /** Without it the certificate is not renewed by this process. */
  readonly own: OwnCertificate | undefined;
  /** The intermediate, at a coordinator that holds it. */
  readonly authority: RenewalAuthority | undefined;
}

export interface CertificateLifeDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly shared?: SharedRevocations;
  readonly countRenewal?: (outcome: RenewalOutcome) => void;
}

/**
 * Certificates while a process runs, the same for nodes and coordinators: its own is renewed in time, those of others
 * are renewed by it when it holds the intermediate, and revocation lists come and go.
 */
export class CertificateLife {
  readonly handlers: PkiHandlers;
  readonly #options: CertificateLifeOptions;
  readonly #spread: RevocationSpread;
  readonly #renewal: CertificateRenewal | undefined;
  #mesh: PeerMesh | undefined;

  constructor(options: CertificateLifeOptions, dependencies: CertificateLifeDependencies) {
    this.#options = options;
    const { trust, trustReloadIntervalMs, own, authority } = options;
    const { clock, random, log, shared, countRenewal } = dependencies;
    this.#spread = new RevocationSpread(
      { intervalMs: trustReloadIntervalMs },
      {
        trust,
        clock,
        log,
        mesh: () => this.#mesh,
        ...(shared === undefined ? {} : { shared }),
        ...(authority === undefined ? {} : { refresh: () => authority.refreshRevocations() }),
      },
    );
    this.#renewal =
      own &&
      new CertificateRenewal(own, {
        clock,
        random,
        verify: (chainDer, nodeId) => trust.verifier.verify(chainDer, nodeId),
        sources: () => this.#sources(),
        install: (credentials) => {
          if (this.#mesh === undefined) throw new Bug("a certificate is renewed before the mesh");
          this.#mesh.useCredentials(credentials);
          this.#mesh.refreshConnections();
        },
        log: networkLog(log),
        ...(countRenewal === undefined ? {} : { count: countRenewal }),
      });
    const report = (error: unknown): void => log.error({ error }, "a handler failed");
    const serve =
      <Request, Response>(handler: (request: Request, context: HandlerContext) => Response | Promise<Response>) =>
      async (request: Request, context: HandlerContext): Promise<Response> => {
        try {
          return await handler(request, context);
        } catch (error) {
          throw faultToWire(error, report);
        }
      };
    this.handlers = {
      certificate: {
        renew: serve((request: RenewRequest, context) => this.#renew(request, context)),
        syncRevocations: serve((request: SyncRevocationsRequest, context) =>
          this.#spread.answer(context.values.get(peerNodeId), request),
        ),
      },
    };
  }

  /** When the certificate that this process shows ends; undefined when it does not look after it. */
  get notAfterMs(): number | undefined {
    return this.#renewal?.certificate.notAfterMs;
  }

  /** The chain that this process shows, DER; undefined when it does not look after it. */
  get chainDer(): readonly Uint8Array[] | undefined {
    return this.#renewal?.chainDer;
  }

  start(mesh: PeerMesh): void {
    this.#mesh = mesh;
    this.#spread.start();
    this.#renewal?.start();
    for (const { nodeId, state } of mesh.status()) if (state === "active") this.#spread.meet(nodeId);
  }

  /** A peer is connected. */
  meet(peer: string): void {
    if (this.#mesh !== undefined) this.#spread.meet(peer);
  }

  async stop(): Promise<void> {
    await Promise.all([this.#spread.stop(), this.#renewal?.stop()]);
  }

  async #renew({ requestDer }: RenewRequest, context: HandlerContext) {
    const { authority } = this.#options;
    if (authority === undefined) throw new Unavailable("no-authority", "this member holds no intermediate");
    const nodeId = context.values.get(peerNodeId);
    const answer = await authority.renew({ nodeId, chainDer: context.values.get(peerChain), requestDer });
    if (!answer.ok) throw refusal(answer.reason);
    return { chainDer: answer.chainDer.map((der) => new Uint8Array(der)) };
  }

  /** The intermediate in this process first, then the coordinators in the roster's order. */
  #sources(): readonly RenewalSource[] {
    const { authority, nodeId, roster } = this.#options;
    const here: RenewalSource[] =
      authority === undefined
        ? []
        : [
            {
              name: nodeId,
              renew: async (requestDer) => {
                const chainDer = this.chainDer ?? [];
                const answer = await authority.renew({ nodeId, chainDer, requestDer });
                if (!answer.ok) throw refusal(answer.reason);
                return answer.chainDer;
              },
            },
          ];
    const others = roster.coordinators.filter((peer) => peer.nodeId !== nodeId);
    return [...here, ...others.map((peer) => ({ name: peer.nodeId, renew: this.#askOf(peer.nodeId) }))];
  }

  #askOf(peer: string): RenewalSource["renew"] {
    return async (requestDer) => {
      if (this.#mesh === undefined) throw new Bug("a certificate is renewed before the mesh");
      try {
        const client = createClient(CertificateService, this.#mesh.transport(peer));
        const request = { requestDer: new Uint8Array(requestDer) };
        return (await client.renew(request, { timeoutMs: RENEW_TIMEOUT_MS })).chainDer;
      } catch (error) {
        throw faultFromWire(error, peer);
      }
    };
  }
}

function refusal(reason: string): InvalidInput | Unavailable {
  if (reason === "too-many-renewals") {
    return new Unavailable("too-many-renewals", "this node has asked for too many certificates: ask again later");
  }
  return new InvalidInput(`renewal-${reason}`, `the renewal is refused: ${reason}`, { reason });
}
