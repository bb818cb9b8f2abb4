import { createPublicKey } from "node:crypto";
import { Code, type ConnectError } from "@connectrpc/connect";
import { calculateJwkThumbprint, createLocalJWKSet, errors, type JWK, type JWTPayload, jwtVerify } from "jose";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { refusal } from "./error-mapping.js";

/** What a token may allow. */
export const SCOPES = ["wallet:read", "wallet:write", "payment:send", "metrics:read"] as const;

export type Scope = (typeof SCOPES)[number];

/** Who calls, as a verified token says. */
export interface Caller {
  /** Claim `sub`. */
  readonly subject: string;
  readonly scopes: ReadonlySet<string>;
  readonly expiresAtMs: number;
}

/** Asymmetric signatures only: with a shared secret, whoever can verify a token could make one. */
const ALGORITHMS = ["EdDSA", "Ed25519", "ES256"];
const TOKEN_MAX_CHARACTERS = 4096;
const SUBJECT_MAX_CHARACTERS = 128;

export interface AuthenticationOptions {
  /** Public keys from `verificationKeys`. */
  readonly keys: readonly JWK[];
  /** Every token must name it in `aud`. */
  readonly audience: string;
  /** When set, every token must name it in `iss`. */
  readonly issuer?: string;
  /** Difference between the issuer's clock and ours that is tolerated. */
  readonly clockToleranceMs: number;
  /** A token that is valid for longer is refused; bounds the harm of one that leaks. */
  readonly lifetimeMaxMs: number;
}

/** Verifies bearer tokens: JWT, EdDSA or ES256, with the audience, an expiry and a subject. */
export class Authenticator {
  readonly #options: AuthenticationOptions;
  readonly #clock: Clock;
  #keySet: ReturnType<typeof createLocalJWKSet>;

  constructor(options: AuthenticationOptions, { clock }: { clock: Clock }) {
    this.#options = options;
    this.#clock = clock;
    this.#keySet = createLocalJWKSet({ keys: [...options.keys] });
  }

  /** Replaces the public keys; tokens of removed keys are refused from now on. */
  replaceKeys(keys: readonly JWK[]): void {
    this.#keySet = createLocalJWKSet({ keys: [...keys] });
  }

  /**
   * Verifies the header `authorization: Bearer TOKEN`.
   *
   * @throws ConnectError `unauthenticated` that says what is wrong with the token, never what it contains
   */
  async authenticate(authorization: string | undefined): Promise<Caller> {
    if (authorization === undefined || authorization === "") {
      throw unauthenticated("token-missing", "send a token: 'authorization: Bearer TOKEN'");
    }
    const token = /^Bearer ([A-Za-z0-9_.-]+)$/i.exec(authorization)?.[1];
    if (token === undefined || token.length > TOKEN_MAX_CHARACTERS) {
      throw unauthenticated("token-malformed", "the authorization header must be 'Bearer' and one JWT");
    }
    const payload = await this.#verified(token);
    const { sub, exp = 0, iat } = payload;
    if (sub === undefined || sub === "" || sub.length > SUBJECT_MAX_CHARACTERS) {
      throw unauthenticated("token-subject", `the token's 'sub' must have 1 to ${SUBJECT_MAX_CHARACTERS} characters`);
    }
    const issuedAtMs = (iat ?? this.#clock.nowMs() / 1000) * 1000;
    if (exp * 1000 - issuedAtMs > this.#options.lifetimeMaxMs) {
      throw unauthenticated("token-lifetime", "the token is valid for longer than this gateway allows");
    }
    const scope = payload["scope"];
    const scopes = new Set(typeof scope === "string" ? scope.split(" ").filter((word) => word !== "") : []);
    return { subject: sub, scopes, expiresAtMs: exp * 1000 };
  }

  async #verified(token: string): Promise<JWTPayload> {
    const { audience, issuer, clockToleranceMs } = this.#options;
    try {
      const { payload } = await jwtVerify(token, this.#keySet, {
        algorithms: ALGORITHMS,
        audience,
        ...(issuer === undefined ? {} : { issuer }),
        clockTolerance: clockToleranceMs / 1000,
        currentDate: new Date(this.#clock.nowMs()),
        requiredClaims: ["sub", "exp", "aud"],
      });
      return payload;
    } catch (cause) {
      throw explained(cause);
    }
  }
}

function explained(cause: unknown): ConnectError {
  if (cause instanceof errors.JWTExpired)
    return unauthenticated("token-expired", "the token has expired; get a new one");
  if (cause instanceof errors.JWTClaimValidationFailed) {
    return unauthenticated(
      `token-${cause.claim}`,
      `the token's claim '${cause.claim}' is missing or not accepted here`,
    );
  }
  if (cause instanceof errors.JOSEAlgNotAllowed) {
    return unauthenticated("token-algorithm", "the token must be signed with EdDSA or ES256");
  }
  if (cause instanceof errors.JWSSignatureVerificationFailed) {
    return unauthenticated("token-forged", "the token's signature does not verify");
  }
  if (cause instanceof errors.JWKSNoMatchingKey) {
    return unauthenticated("token-key-unknown", "the token is signed by a key that this gateway does not know");
  }
  if (cause instanceof errors.JWKSMultipleMatchingKeys) {
    return unauthenticated("token-key-ambiguous", "the token must name its key in the header 'kid'");
  }
  return unauthenticated("token-malformed", "the token is not a valid JWT");
}

function unauthenticated(reason: string, message: string): ConnectError {
  return refusal({
    code: Code.Unauthenticated,
    reason,
    message,
    headers: {
      "www-authenticate": `Bearer error="invalid_token", error_description="${message.replace(/["\\]/g, "'")}"`,
    },
  });
}

/** @throws ConnectError `permission_denied` when the caller's token lacks the scope */
export function requireScope(caller: Caller, scope: Scope): void {
  if (caller.scopes.has(scope)) return;
  throw refusal({
    code: Code.PermissionDenied,
    reason: "scope-missing",
    message: `the token does not have the scope '${scope}'`,
    facts: { scope },
  });
}

/**
 * Public keys of token issuers from the text of a file: PEM (SPKI) or a JWKS. A PEM key gets its RFC 7638 thumbprint as
 * `kid`. Private keys, shared secrets and other curves are refused, so no key can be used under another algorithm.
 *
 * @param file name for messages
 * @throws InvalidInput "jwt-key-unusable"
 */
export async function verificationKeys(text: string, file: string): Promise<readonly JWK[]> {
  const unusable = (why: string, cause?: unknown) =>
    new InvalidInput("jwt-key-unusable", `${file}: ${why}`, { file }, cause);
  if (text.includes("PRIVATE KEY")) throw unusable("is a private key; the gateway needs the public key only");
  let found: JWK[];
  try {
    found = text.trimStart().startsWith("{")
      ? (JSON.parse(text) as { keys: JWK[] }).keys
      : [createPublicKey(text).export({ format: "jwk" }) as JWK];
  } catch (cause) {
    throw unusable("is neither a public key in PEM nor a JWKS", cause);
  }
  if (!Array.isArray(found) || found.length === 0 || found.length > 100) throw unusable("must hold 1 to 100 keys");
  return Promise.all(found.map((key) => usable(key, unusable)));
}

async function usable(key: JWK, unusable: (why: string) => InvalidInput): Promise<JWK> {
  if (key.d !== undefined || key.k !== undefined) throw unusable("holds a secret; the gateway needs public keys only");
  const { kty, crv, x, y } = key;
  let publicKey: JWK;
  if (kty === "OKP" && crv === "Ed25519" && x !== undefined) publicKey = { kty, crv, x };
  else if (kty === "EC" && crv === "P-256" && x !== undefined && y !== undefined) publicKey = { kty, crv, x, y };
  else throw unusable(`has a key of kind ${kty}/${crv}; Ed25519 and P-256 are accepted`);
  const kid = key.kid ?? (await calculateJwkThumbprint(publicKey));
  // Without `alg`, the same OKP key serves both names of the one algorithm, "EdDSA" and "Ed25519".
  return { ...publicKey, kid, use: "sig", ...(kty === "EC" ? { alg: "ES256" } : {}) };
}
