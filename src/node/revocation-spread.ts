import { createClient } from "@connectrpc/connect";
import {
  CertificateService,
  type SyncRevocationsRequest,
  type SyncRevocationsResponse,
} from "../../gen/mpcwallet/pki/v1/pki_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { CallBudget } from "../network/call-budget.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { PeerMesh } from "../network/peer-mesh.js";
import type { Logger } from "./log.js";

/** An authority has one list, and a firm a handful of authorities. */
const MAX_LISTS = 8;
const SYNC_TIMEOUT_MS = 5_000;
/** A peer's calls: twenty at once, then two a second. Each list that it brings costs the verification of a signature. */
const CALLS = { burst: 20, refillMs: 500 };
/** News go out at once; that something was missed all the same is found out this often. */
const SYNC_INTERVAL_MS = 60_000;

/** A place where coordinators leave lists for each other. */
export interface SharedRevocations {
  /** DER. */
  read(): Promise<readonly Uint8Array[]>;
  write(list: { readonly issuer: string; readonly der: Uint8Array }): Promise<void>;
}

export interface RevocationSpreadDependencies {
  readonly trust: TrustFiles;
  readonly clock: Clock;
  readonly log: Logger;
  readonly mesh: () => Pick<PeerMesh, "transport" | "status" | "reverifyPeers"> | undefined;
  readonly shared?: SharedRevocations;
  /** Called at each look; a coordinator that holds the intermediate signs the list anew in time. */
  readonly refresh?: () => Promise<unknown>;
}

type Known = ReadonlyMap<string, number>;

/**
 * Revocation lists on their way to everybody: read from files, from coordination and from peers; kept on disk; told to
 * every connected peer in the moment in which they are new here. Whoever brings a list, it counts by its signature and
 * its number alone, so that an old one makes nobody good again. After each change, and at each look, live peers are
 * judged again.
 */
export class RevocationSpread {
  readonly #intervalMs: number;
  readonly #dependencies: RevocationSpreadDependencies;
  readonly #calls = new CallBudget(CALLS);
  /** What was last complained about, so that each complaint is made once. */
  readonly #complaints = new Map<string, string>();
  /** Numbers that have been spread. */
  #spread: Map<string, number>;
  #syncedMs = 0;
  #cancel: () => void = () => {};
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(options: { readonly intervalMs: number }, dependencies: RevocationSpreadDependencies) {
    this.#intervalMs = options.intervalMs;
    this.#dependencies = dependencies;
    this.#spread = new Map(dependencies.trust.revocations.all().map(({ issuer, number }) => [issuer, number]));
  }

  start(): void {
    void this.#keep();
    this.#schedule();
  }

  /** Resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#running;
  }

  /** A peer is connected: each side brings the other one up to date. */
  meet(peer: string): void {
    void this.#sync(peer).catch((error: unknown) =>
      this.#dependencies.log.debug({ event: "sync-failed", peer, err: error }),
    );
  }

  /** Answers a peer. @throws InvalidInput `too-many-lists`; Unavailable `too-many-calls` */
  answer(caller: string, request: SyncRevocationsRequest): Pick<SyncRevocationsResponse, "known" | "listsDer"> {
    if (!this.#calls.take(caller, this.#dependencies.clock.monotonicMs())) {
      throw new Unavailable("too-many-calls", "too many calls about revocation lists");
    }
    if (request.listsDer.length > MAX_LISTS || request.known.length > MAX_LISTS * 4) {
      throw new InvalidInput("too-many-lists", `at most ${MAX_LISTS} lists in one call`);
    }
    this.#take(request.listsDer, caller);
    return { known: this.#known(), listsDer: this.#newerThan(knownOf(request)) };
  }

  /** Reads files and coordination now, instead of at the next look. */
  async look(): Promise<void> {
    const { trust, log, shared, refresh, mesh, clock } = this.#dependencies;
    for (const result of await trust.readRevocations()) {
      const { path } = result;
      if (result.ok) this.#complaints.delete(path);
      else this.#complain(path, result.reason, "cause" in result ? result.cause : undefined);
    }
    try {
      await refresh?.();
      if (shared !== undefined) {
        this.#take(await shared.read(), "coordination");
        for (const list of trust.revocations.all()) await shared.write(list);
      }
      this.#complaints.delete("shared");
    } catch (error) {
      this.#complain("shared", "unavailable", error);
    }
    if (this.#stopped) return;
    this.#tell(undefined);
    // Certificates also expire.
    mesh()?.reverifyPeers();
    if (clock.monotonicMs() - this.#syncedMs < SYNC_INTERVAL_MS) return;
    this.#syncedMs = clock.monotonicMs();
    for (const peer of this.#connected()) this.meet(peer);
    await this.#keep().catch((error: unknown) => log.error({ event: "revocation-list-not-kept", err: error }));
  }

  #schedule(): void {
    this.#cancel = this.#dependencies.clock.after(this.#intervalMs, () => {
      this.#running = this.look()
        .catch((error: unknown) => this.#dependencies.log.error({ event: "revocation-look-failed", err: error }))
        .then(() => {
          if (!this.#stopped) this.#schedule();
        });
    });
  }

  #take(lists: readonly Uint8Array[], from: string): void {
    for (const der of lists) {
      const result = this.#dependencies.trust.offer(der);
      // A list that is older than ours says that its bearer is behind, not that something is wrong.
      if (!result.ok && result.reason !== "rollback") {
        this.#dependencies.log.warn({ event: "revocation-list-refused", from, reason: result.reason });
      }
    }
    this.#tell(from);
  }

  /** Passes on what is new since the last time, has live peers judged by it and keeps it. */
  #tell(from: string | undefined): void {
    const { trust, log, mesh } = this.#dependencies;
    const news = trust.revocations.all().filter(({ issuer, number }) => (this.#spread.get(issuer) ?? -1) < number);
    if (news.length === 0 || this.#stopped) return;
    for (const { issuer, number } of news) {
      this.#spread.set(issuer, number);
      log.info({ event: "revocation-list", issuer, number, ...(from === undefined ? {} : { from }) });
    }
    mesh()?.reverifyPeers();
    for (const peer of this.#connected()) if (peer !== from) this.meet(peer);
    this.#keep().catch((error: unknown) => log.error({ event: "revocation-list-not-kept", err: error }));
  }

  /** Our numbers, and lists for which the peer is known to be behind; then what it turns out to lack. */
  async #sync(peer: string): Promise<void> {
    const transport = this.#dependencies.mesh()?.transport(peer);
    if (transport === undefined || this.#stopped) return;
    const client = createClient(CertificateService, transport);
    const ask = (listsDer: Uint8Array[]) =>
      client.syncRevocations({ known: this.#known(), listsDer }, { timeoutMs: SYNC_TIMEOUT_MS });
    const first = await ask([]);
    this.#take(first.listsDer.slice(0, MAX_LISTS), peer);
    const missing = this.#newerThan(knownOf(first));
    if (missing.length > 0) await ask(missing);
  }

  #keep(): Promise<void> {
    return this.#dependencies.trust.keepRevocations();
  }

  #connected(): string[] {
    const links = this.#dependencies.mesh()?.status() ?? [];
    return links.filter(({ state }) => state === "active" || state === "degraded").map(({ nodeId }) => nodeId);
  }

  #known(): SyncRevocationsResponse["known"] {
    return this.#dependencies.trust.revocations.all().map(({ issuer, number }) => ({
      $typeName: "mpcwallet.pki.v1.KnownRevocations" as const,
      issuer: new Uint8Array(Buffer.from(issuer, "hex")),
      number: BigInt(number),
    }));
  }

  #newerThan(known: Known): Uint8Array<ArrayBuffer>[] {
    const lists = this.#dependencies.trust.revocations.all();
    return lists
      .filter(({ issuer, number }) => (known.get(issuer) ?? -1) < number)
      .slice(0, MAX_LISTS)
      .map(({ der }) => new Uint8Array(der));
  }

  #complain(about: string, reason: string, cause: unknown): void {
    if (this.#complaints.get(about) === reason) return;
    this.#complaints.set(about, reason);
    const { log } = this.#dependencies;
    // Peers were faster than whoever copies files: the newer list stays in force.
    if (reason === "rollback") log.warn({ event: "revocation-list-file-is-behind", path: about });
    else
      log.error({
        event: "revocation-list-refused",
        path: about,
        reason,
        ...(cause === undefined ? {} : { err: cause }),
      });
  }
}

function knownOf({ known }: Pick<SyncRevocationsRequest, "known">): Known {
  return new Map(known.map(({ issuer, number }) => [Buffer.from(issuer).toString("hex"), Number(number)]));
}
