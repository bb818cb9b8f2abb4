import { fork } from "node:child_process";
import type { Clock } from "../crypto/ambient.js";
import { Bug, Unavailable } from "../crypto/fault.js";
import { toBytes, toInteger } from "../crypto/modulus.js";
import type { SecurityProfile } from "../crypto/security-profile.js";
import type { AuxPrimes } from "../protocols/cggmp24/aux-info.js";
import type { PrimeProgress } from "../protocols/cggmp24/aux-primes.js";
import type { KeyStore } from "../storage/key-store.js";
import { SecretBytes } from "../storage/secret-bytes.js";
import type { Logger } from "./log.js";

/** Where a node gets the primes of its auxiliary info. */
export interface PrimeSource {
  /** Resolves when a set is at hand. @throws Unavailable `primes-failed` */
  prepare(): Promise<void>;
  /** Takes a set out for ever. @throws Unavailable `primes-missing` when none is at hand */
  take(): Promise<AuxPrimes>;
  /** How far it is now, for people who wait. */
  readonly progress: PrimePoolProgress;
  close(): Promise<void>;
}

export interface PrimePoolProgress {
  /** Sets at hand. */
  readonly ready: number;
  /** Of the set that is being drawn now; absent when none is. */
  readonly drawing: PrimeProgress | undefined;
}

/** Draws one set; ends early with the signal. `report` hears how far it is. */
export type DrawPrimes = (
  profile: SecurityProfile,
  signal: AbortSignal,
  report: (progress: PrimeProgress) => void,
) => Promise<AuxPrimes>;

/** What the process that draws says to its parent. */
export type PrimeReport =
  | { readonly kind: "progress"; readonly progress: PrimeProgress }
  | { readonly kind: "primes"; readonly primes: AuxPrimes };

const PREFIX = "aux-primes/";
const RETRY_MS = 60_000;

/**
 * Sets of primes drawn ahead, sealed in the key store. A safe prime of 1,536 bits takes about two seconds of a core
 * that is otherwise idle, so a wallet's creation should not wait for them.
 */
export class PrimePool implements PrimeSource {
  readonly #profile: SecurityProfile;
  /** Sets to keep; with 0 they are drawn when somebody asks. */
  readonly #size: number;
  readonly #store: KeyStore;
  readonly #draw: DrawPrimes;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #drawing: Promise<void> | undefined;
  #drawn: PrimeProgress | undefined;
  #cancelRetry = (): void => {};

  constructor(
    options: { readonly profile: SecurityProfile; readonly size: number },
    dependencies: {
      readonly store: KeyStore;
      readonly clock: Clock;
      readonly log: Logger;
      readonly draw?: DrawPrimes;
    },
  ) {
    this.#profile = options.profile;
    this.#size = options.size;
    this.#store = dependencies.store;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#draw = dependencies.draw ?? drawInProcess;
    this.#refill();
  }

  async prepare(): Promise<void> {
    while (this.#names().length === 0) await this.#drawOne();
  }

  async take(): Promise<AuxPrimes> {
    const [name] = this.#names();
    const secret = name === undefined ? undefined : await this.#store.takeSecret(name);
    if (secret === undefined) throw new Unavailable("primes-missing", "no primes are at hand; prepare some first");
    try {
      return decode(secret.reveal(), this.#profile);
    } finally {
      secret.erase();
      this.#refill();
    }
  }

  get progress(): PrimePoolProgress {
    return { ready: this.#names().length, drawing: this.#drawn };
  }

  async close(): Promise<void> {
    this.#cancelRetry();
    this.#stop.abort();
    await this.#drawing?.catch(() => undefined);
  }

  #names(): readonly string[] {
    return this.#store.secretNames(`${PREFIX}${this.#profile.name}/`);
  }

  #refill(): void {
    if (this.#stop.signal.aborted || this.#names().length >= this.#size) return;
    this.#drawOne().then(
      () => this.#refill(),
      (error: unknown) => {
        if (this.#stop.signal.aborted) return;
        this.#log.warn({ event: "primes-failed", err: error }, "no primes were drawn; trying again later");
        this.#cancelRetry = this.#clock.after(RETRY_MS, () => this.#refill());
      },
    );
  }

  /** One at a time, whoever asks. */
  #drawOne(): Promise<void> {
    this.#drawing ??= this.#drawAndKeep().finally(() => {
      this.#drawing = undefined;
      this.#drawn = undefined;
    });
    return this.#drawing;
  }

  async #drawAndKeep(): Promise<void> {
    const startedMs = this.#clock.monotonicMs();
    this.#drawn = { found: 0, tested: 0 };
    const primes = await this.#draw(this.#profile, this.#stop.signal, (progress) => {
      this.#drawn = progress;
    });
    const secret = SecretBytes.adopt(encode(primes, this.#profile));
    const name = `${PREFIX}${this.#profile.name}/${Math.floor(this.#clock.nowMs())}-${this.#names().length}`;
    await this.#store.putSecret(name, secret);
    secret.erase();
    const durationMs = Math.round(this.#clock.monotonicMs() - startedMs);
    this.#log.info({ event: "primes-drawn", profile: this.#profile.name, durationMs }, "primes are at hand");
  }
}

const inOrder = ({ paillier, ringPedersen }: AuxPrimes): readonly bigint[] => [
  paillier.p,
  paillier.q,
  ringPedersen.p,
  ringPedersen.q,
];

function encode(primes: AuxPrimes, { primeBits }: SecurityProfile): Uint8Array {
  return Uint8Array.from(inOrder(primes).flatMap((prime) => [...toBytes(prime, primeBits / 8)]));
}

function decode(bytes: Uint8Array, { primeBits }: SecurityProfile): AuxPrimes {
  const length = primeBits / 8;
  if (bytes.length !== 4 * length) throw new Bug("stored primes have another length", { bytes: bytes.length });
  const prime = (place: number): bigint => toInteger(bytes.subarray(place * length, (place + 1) * length));
  return { paillier: { p: prime(0), q: prime(1) }, ringPedersen: { p: prime(2), q: prime(3) } };
}

/** In a child process of the least priority, which gets nothing of this process' environment. */
const drawInProcess: DrawPrimes = (profile, signal, report) =>
  new Promise((resolve, reject) => {
    const fail = (why: string): void => reject(new Unavailable("primes-failed", `no primes were drawn: ${why}`));
    const child = fork(new URL("./prime-maker.js", import.meta.url), [profile.name], {
      env: {},
      serialization: "advanced",
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      execArgv: [],
      signal,
      killSignal: "SIGKILL",
    });
    child.on("message", (message) => {
      const said = message as unknown as PrimeReport;
      if (said.kind === "primes") resolve(said.primes);
      else report(said.progress);
    });
    child.once("error", (error) => fail(error.message));
    child.once("exit", (code, by) => fail(by ?? `exit code ${String(code)}`));
  });
