import { Code, ConnectError } from "@connectrpc/connect";
import { CommanderError } from "commander";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { Bug, InvalidInput, PeerFault, PeerSilent, Unavailable } from "../crypto/fault.js";

/** How a command that did not succeed is reported. */
export interface Failure {
  /** 1 failed, 2 wrong usage. */
  readonly exitCode: 1 | 2;
  /** Machine-readable. */
  readonly code: string;
  readonly message: string;
  /** What to do about it; empty when there is nothing to say. */
  readonly next: string;
}

/** What to do next, by the machine-readable reason that an error carries. */
const NEXT: Readonly<Record<string, string>> = {
  "token-expired": "get a new token and put it where the profile says",
  "token-missing": "put a token where the profile says; 'mpc-wallet token issue --help' makes one",
  "token-key-unknown": "the token is for another gateway, or its issuer's key was replaced; get a new token",
  "scope-missing": "get a token with that scope",
  "rate-limited": "wait a moment and try again",
  "wallet-unknown": "'mpc-wallet wallet list' shows the wallets",
  "payment-unknown": "'mpc-wallet history' shows the payments",
  "wallet-exists": "choose another --name",
  "authority-unknown": "the nodes do not know this payment authority; check authority.name in the profile",
  "request-forged": "the nodes know another key for this payment authority; check authority.keyFile in the profile",
  "request-expired": "send again; check this machine's clock",
  "request-from-future": "check this machine's clock",
  "folder-locked": "stop the process that uses this folder first",
  "insufficient-funds": "'mpc-wallet balance' shows what can be spent",
  "change-forged": "the nodes know another key for this payment authority; check authority.keyFile in the profile",
  "change-expired": "run the command again; check this machine's clock",
  "change-from-future": "check this machine's clock",
  "change-running":
    "'mpc-wallet wallet change' shows how far it is; --give-up-unfinished if a node of it is gone for good",
  "change-other-base":
    "the wallet changed meanwhile; look at it with 'mpc-wallet wallet show', then run the command again",
  "change-abandoned": "the old shares sign as before; mend what the message names, then run the command again",
  "party-unknown": "'mpc-wallet health' shows the nodes",
  "profile-missing": "a devnet writes .devnet/client.toml; deploy/config/client.toml is an example",
};

const NEXT_BY_CODE: Readonly<Partial<Record<Code, string>>> = {
  [Code.Unavailable]: "try again; 'mpc-wallet health' shows what does not answer",
  [Code.DeadlineExceeded]: "try again; 'mpc-wallet health' shows what does not answer",
  [Code.Aborted]: "a node broke the protocol and is named in the gateway's log; try again",
  [Code.Unauthenticated]: "get a new token and put it where the profile says",
  [Code.Unimplemented]: "this gateway is of another version, or the URL is not a gateway's",
};

/** Turns whatever a command threw into one report. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CommanderError) {
    return {
      exitCode: 2,
      code: "usage",
      message: error.message.replace(/^error: /, "").replace(/\s*\n\s*/g, " "),
      next: "add --help",
    };
  }
  if (error instanceof ConnectError) return connectFailure(error);
  if (
    error instanceof InvalidInput ||
    error instanceof Unavailable ||
    error instanceof PeerFault ||
    error instanceof PeerSilent
  ) {
    const exitCode = error instanceof InvalidInput && USAGE.has(error.code) ? 2 : 1;
    return { exitCode, code: error.code, message: error.message, next: NEXT[error.code] ?? "" };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { exitCode: 1, code: error instanceof Bug ? "bug" : "unexpected", message, next: "please report this" };
}

/** Invalid input that stands on the command line. */
const USAGE: ReadonlySet<string> = new Set(["amount-invalid", "option-invalid"]);

function connectFailure(error: ConnectError): Failure {
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason;
  const code = reason ?? (Code[error.code] ?? "unknown").replace(/[a-z](?=[A-Z])/g, "$&-").toLowerCase();
  const tls = tlsFailure(error);
  if (tls !== undefined) return { exitCode: 1, code: "certificate-refused", ...tls };
  const next = NEXT[code] ?? NEXT_BY_CODE[error.code] ?? "";
  return { exitCode: 1, code, message: error.rawMessage, next };
}

/** OpenSSL's words for a certificate that is not accepted, in ours. */
function tlsFailure(error: ConnectError): { message: string; next: string } | undefined {
  const text = `${error.rawMessage} ${error.cause instanceof Error ? error.cause.message : ""}`;
  if (/self-signed certificate|unable to (verify|get)|certificate signature failure/i.test(text)) {
    const message = "the gateway's certificate is not signed by the authority in gateway.caFile";
    return { message, next: "check gateway.url and gateway.caFile in the profile" };
  }
  if (/Hostname\/IP does not match/i.test(text)) {
    const message = "the gateway's certificate is for another host name";
    return { message, next: "check gateway.url in the profile" };
  }
  return undefined;
}
