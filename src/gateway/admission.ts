import type { DescMethod } from "@bufbuild/protobuf";
import { type ConnectError, createContextKey, type Interceptor } from "@connectrpc/connect";
import { Health } from "../../gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1alpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import { WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { Bug } from "../crypto/fault.js";
import { type Authenticator, type Caller, requireScope, type Scope } from "./authentication.js";
import { toConnectError } from "./error-mapping.js";
import type { RateLimit } from "./rate-limit.js";

/** The scope that each method of the wallet API needs; a method that is missing does not compile. */
const WALLET_SCOPE: Readonly<Record<keyof typeof WalletService.method, Scope>> = {
  createWallet: "wallet:write",
  listWallets: "wallet:read",
  getWallet: "wallet:read",
  changeWallet: "wallet:write",
  getWalletChange: "wallet:read",
  newAddress: "wallet:write",
  getBalance: "wallet:read",
  listUtxos: "wallet:read",
  sendPayment: "payment:send",
  getPayment: "wallet:read",
  watchPayment: "wallet:read",
  listPayments: "wallet:read",
  getVotes: "wallet:read",
  getPoolStatus: "wallet:read",
  getHealth: "wallet:read",
};

/** Services that say nothing about wallets; calls to them are counted by address. */
const PUBLIC: ReadonlySet<string> = new Set([
  Health.typeName,
  ServerReflection.typeName,
  ServerReflectionV1alpha.typeName,
]);

/** The scope that a method needs, or undefined for a public one. */
export function scopeOf(method: DescMethod): Scope | undefined {
  if (PUBLIC.has(method.parent.typeName)) return undefined;
  const scope = new Map<string, Scope>(Object.entries(WALLET_SCOPE)).get(method.localName);
  if (method.parent.typeName !== WalletService.typeName || scope === undefined) {
    throw new Bug("a method without a scope", { method: `${method.parent.typeName}/${method.name}` });
  }
  return scope;
}

/** What was decided about a request before its body was read. */
export type Admission =
  | { readonly admitted: true; readonly caller: Caller | undefined }
  | { readonly admitted: false; readonly error: ConnectError };

export interface Claim {
  readonly scope: Scope | undefined;
  readonly authorization: string | undefined;
  readonly address: string;
}

/** Authenticates, counts and authorizes requests, in this order. */
export class Gate {
  readonly #authenticator: Authenticator;
  readonly #rateLimit: RateLimit;
  readonly #report: (cause: unknown) => void;

  /** @param parts.report gets errors that are no verdict about the request */
  constructor(parts: { authenticator: Authenticator; rateLimit: RateLimit; report: (cause: unknown) => void }) {
    this.#authenticator = parts.authenticator;
    this.#rateLimit = parts.rateLimit;
    this.#report = parts.report;
  }

  /** Total: what goes wrong while deciding is a refusal. */
  async decide(claim: Claim): Promise<Admission> {
    try {
      return await this.#decide(claim);
    } catch (cause) {
      return { admitted: false, error: toConnectError(cause, this.#report) };
    }
  }

  async #decide({ scope, authorization, address }: Claim): Promise<Admission> {
    if (scope === undefined) {
      const error = await this.#rateLimit.countAddress(address);
      return error === undefined ? { admitted: true, caller: undefined } : { admitted: false, error };
    }
    let caller: Caller;
    try {
      caller = await this.#authenticator.authenticate(authorization);
    } catch (refused) {
      const limited = await this.#rateLimit.countAddress(address);
      throw limited ?? refused;
    }
    const limited = await this.#rateLimit.countSubject(caller.subject);
    if (limited !== undefined) return { admitted: false, error: limited };
    requireScope(caller, scope);
    return { admitted: true, caller };
  }
}

/** Carries the decision from the HTTP request to the interceptor below. */
export const ADMISSION = createContextKey<Admission | undefined>(undefined, { description: "admission" });

/** Refuses every call that was not admitted; a call that reaches it undecided is our own bug. */
export function admission(): Interceptor {
  return (next) => (request) => {
    const decision = request.contextValues.get(ADMISSION);
    if (decision === undefined) throw new Bug("a call without an admission decision", { method: request.method.name });
    if (!decision.admitted) throw decision.error;
    return next(request);
  };
}
