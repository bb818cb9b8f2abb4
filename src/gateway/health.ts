import { Code, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import {
  type Health,
  type HealthCheckResponse_ServingStatus,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../gen/grpc/health/v1/health_pb.js";
import type { Clock } from "../crypto/ambient.js";
import type { WalletApplication } from "../wallet/wallet-application.js";
import { refusal } from "./error-mapping.js";

/** An answer is reused for this long, so that strangers who ask for health cannot load the wallet. */
const FRESH_MS = 1000;
const WATCH_INTERVAL_MS = 2000;
const WATCHES_MAX = 32;

/** Whether calls should be sent here: the process is not draining and the wallet can make payments. */
export class Readiness {
  readonly #clock: Clock;
  readonly #application: WalletApplication;
  readonly #draining: AbortSignal;
  #known: { atMs: number; healthy: Promise<boolean> } | undefined;

  constructor({ draining }: { draining: AbortSignal }, parts: { clock: Clock; application: WalletApplication }) {
    this.#draining = draining;
    this.#clock = parts.clock;
    this.#application = parts.application;
  }

  async ready(): Promise<boolean> {
    if (this.#draining.aborted) return false;
    const nowMs = this.#clock.monotonicMs();
    if (this.#known === undefined || nowMs - this.#known.atMs > FRESH_MS) {
      const healthy = this.#application.health().then(
        (health) => health.healthy,
        () => false,
      );
      this.#known = { atMs: nowMs, healthy };
    }
    return this.#known.healthy;
  }
}

/** `grpc.health.v1` for the whole server (service "") and for each named service. */
export function healthHandlers(
  readiness: Readiness,
  { services, clock, draining }: { services: readonly string[]; clock: Clock; draining: AbortSignal },
): ServiceImpl<typeof Health> {
  let watches = 0;
  const status = async (service: string): Promise<HealthCheckResponse_ServingStatus> => {
    if (service !== "" && !services.includes(service)) return ServingStatus.SERVICE_UNKNOWN;
    return (await readiness.ready()) ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
  };
  return {
    async check({ service }) {
      const known = await status(service);
      if (known === ServingStatus.SERVICE_UNKNOWN) {
        throw refusal({ code: Code.NotFound, reason: "service-unknown", message: "no such service" });
      }
      return { status: known };
    },
    async list() {
      const overall = { status: await status("") };
      return { statuses: Object.fromEntries(["", ...services].map((name) => [name, overall])) };
    },
    async *watch({ service }, context: HandlerContext) {
      if (watches >= WATCHES_MAX) {
        throw refusal({ code: Code.ResourceExhausted, reason: "too-many-watches", message: "too many health watches" });
      }
      watches += 1;
      const until = AbortSignal.any([context.signal, draining]);
      try {
        let last: HealthCheckResponse_ServingStatus | undefined;
        while (!context.signal.aborted) {
          const now = await status(service);
          if (now !== last) yield { status: now };
          last = now;
          if (draining.aborted) return;
          await pause(clock, until);
        }
      } finally {
        watches -= 1;
      }
    },
  };
}

function pause(clock: Clock, until: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      cancel();
      until.removeEventListener("abort", wake);
      resolve();
    };
    const cancel = clock.after(WATCH_INTERVAL_MS, wake);
    until.addEventListener("abort", wake, { once: true });
    if (until.aborted) wake();
  });
}
