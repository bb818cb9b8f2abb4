import { Code, ConnectError } from "@connectrpc/connect";
import { type Command, Option } from "commander";
import type { SignedPaymentRequest } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { BallotVerdict, type Payment, PaymentPhase, PaymentSchema } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { signPaymentRequest } from "../consensus/payment-request.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { btcText, feeRateSatPerKvb, satFromBtc, satFromText } from "./amount.js";
import { paymentAuthority } from "./gateway-client.js";
import {
  gatewayCommand,
  type Session,
  show,
  type WalletOptions,
  walletOption,
  wholeNumber,
  withGateway,
} from "./gateway-session.js";
import { aligned, listed, type Terminal } from "./terminal.js";

interface SendOptions extends WalletOptions {
  readonly to?: string;
  readonly amountSat?: string;
  readonly amountBtc?: string;
  readonly maxFeeRate?: string;
  readonly metadata?: string;
  readonly requestId?: string;
  /** "broadcast" unless `--wait` or `--no-wait` is given. */
  readonly wait?: boolean;
  readonly timeout?: string;
}

const SEND_ATTEMPTS_MAX = 4;
const RETRY_AFTER_MS = 500;
const BROADCAST_TIMEOUT_S = "120";
const CONFIRMATION_TIMEOUT_S = "7200";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Adds `send`: the one command that moves money. */
export function addSendCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "send [address]")
    .description("pay: sign a payment request with your authority's key, then wait until it is broadcast")
    .addOption(walletOption())
    .option("--to <address>", "the address, instead of the argument")
    .addOption(new Option("--amount-sat <satoshi>", "a whole number of satoshi").conflicts("amountBtc"))
    .option("--amount-btc <decimal>", "for example 0.015, exact")
    .option("--max-fee-rate <sat/vB>", "highest fee rate that you accept")
    .option("--metadata <json>", "kept in the audit trail, committed to by OP_RETURN")
    .option("--request-id <uuid>", "an id of your own; a request is paid at most once")
    .option("--wait", "wait for the confirmation too")
    .option("--no-wait", "return as soon as the payment is recorded")
    .option("--timeout <seconds>", `stop waiting; ${BROADCAST_TIMEOUT_S}, or ${CONFIRMATION_TIMEOUT_S} with --wait`)
    .action(async (argument: string | undefined, options: SendOptions, command: Command) => {
      const address = argument ?? options.to;
      if (address === undefined || (argument !== undefined && options.to !== undefined)) {
        throw new InvalidInput("option-invalid", "give one address: mpc-wallet send ADDRESS --amount-sat N");
      }
      const amountSat = amountOf(options);
      // `--wait` and `--no-wait` share a value; neither means: until it is broadcast.
      const until =
        command.getOptionValueSource("wait") !== "cli" ? "broadcast" : options.wait ? "confirmed" : "recorded";
      const seconds = options.timeout ?? (until === "confirmed" ? CONFIRMATION_TIMEOUT_S : BROADCAST_TIMEOUT_S);
      const timeoutMs = wholeNumber(seconds, "--timeout") * 1000;
      await withGateway({ command, terminal }, async (session) => {
        const request = await signedRequest(session, { address, amountSat, options });
        const recorded = await submit(session, request);
        terminal.progress(`payment ${recorded.paymentId} is recorded`);
        const payment =
          until === "recorded" ? recorded : await followed(session, { payment: recorded, until, timeoutMs });
        printPayment(session, payment);
        if (payment.failure !== undefined) process.exitCode = 1;
      });
    });
}

function amountOf({ amountSat, amountBtc }: SendOptions): bigint {
  if (amountSat !== undefined) return satFromText(amountSat);
  if (amountBtc !== undefined) return satFromBtc(amountBtc);
  throw new InvalidInput("option-invalid", "say how much: --amount-sat N or --amount-btc N");
}

async function signedRequest(
  session: Session,
  { address, amountSat, options }: { address: string; amountSat: bigint; options: SendOptions },
): Promise<SignedPaymentRequest> {
  const { profile, terminal } = session;
  const signer = await paymentAuthority(profile);
  const metadataJson = options.metadata ?? "";
  if (metadataJson !== "" && !isJson(metadataJson)) throw new InvalidInput("option-invalid", "--metadata must be JSON");
  const requestId = options.requestId ?? uuid(terminal);
  if (!UUID.test(requestId)) throw new InvalidInput("option-invalid", "--request-id must be a lower-case UUID");
  const maxFeeRateSatPerKvb = feeRateSatPerKvb(options.maxFeeRate ?? String(profile.defaults.maxFeeRateSatPerVb));
  const { walletId } = await session.wallet(options.wallet);
  const createdAtMs = BigInt(Math.floor(terminal.clock.nowMs()));
  const expiresAtMs = createdAtMs + BigInt(profile.defaults.requestLifetimeMs);
  const recipients = [{ address, amountSat }];
  return signPaymentRequest(
    { requestId, walletId, recipients, maxFeeRateSatPerKvb, metadataJson, createdAtMs, expiresAtMs },
    signer,
  );
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Version 4, RFC 9562. */
export function uuid({ random }: Terminal): string {
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return Buffer.from(bytes)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The same signed bytes are paid at most once, so an unclear answer is asked again. */
async function submit({ client, terminal }: Session, payment: SignedPaymentRequest): Promise<Payment> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const answer = await client.sendPayment({ payment });
      if (answer.payment !== undefined) return answer.payment;
      throw new InvalidInput("answer-incomplete", "the gateway's answer has no payment");
    } catch (error) {
      if (attempt === SEND_ATTEMPTS_MAX || ConnectError.from(error).code !== Code.Unavailable) throw error;
      terminal.progress("the gateway does not answer; asking again");
      await pause(terminal, RETRY_AFTER_MS * attempt);
    }
  }
}

export function pause({ clock }: Terminal, delayMs: number): Promise<void> {
  // A timer of our own keeps the process alive; the clock's do not.
  const alive = setInterval(() => {}, 1 << 30);
  return new Promise((resolve) => {
    clock.after(delayMs, () => {
      clearInterval(alive);
      resolve();
    });
  });
}

const FINAL: ReadonlySet<PaymentPhase> = new Set([
  PaymentPhase.CONFIRMED,
  PaymentPhase.REJECTED,
  PaymentPhase.TIMED_OUT,
  PaymentPhase.FAILED,
]);

interface Wanted {
  readonly payment: Payment;
  readonly until: "broadcast" | "confirmed" | "final";
  readonly timeoutMs: number;
}

/** Watches a payment, through ends of the watch, until it is where it should be. */
async function followed(session: Session, { payment, until, timeoutMs }: Wanted): Promise<Payment> {
  const { client, terminal } = session;
  const { paymentId } = payment;
  const deadline = AbortSignal.timeout(timeoutMs);
  const reached = ({ phase }: Payment): boolean =>
    FINAL.has(phase) || (until === "broadcast" && phase === PaymentPhase.BROADCAST);
  let last = payment;
  while (!reached(last)) {
    // Leaving the loop does not end the call at the server; aborting does.
    const done = new AbortController();
    const signal = AbortSignal.any([deadline, done.signal]);
    try {
      for await (const update of client.watchPayment({ paymentId }, { signal, timeoutMs: 0 })) {
        if (update.payment === undefined) continue;
        if (update.payment.phase !== last.phase) terminal.progress(await progressLine(session, update.payment));
        last = update.payment;
        if (reached(last)) break;
      }
    } catch (error) {
      if (deadline.aborted) {
        const message = `the payment is still ${phaseName(last.phase)} after ${timeoutMs / 1000} s; it goes on without us`;
        throw new Unavailable("still-waiting", message, { paymentId });
      }
      const { code } = ConnectError.from(error);
      if (code !== Code.Unavailable && code !== Code.Aborted && code !== Code.Canceled) throw error;
    } finally {
      done.abort();
    }
    if (!reached(last)) await pause(terminal, RETRY_AFTER_MS);
  }
  return last;
}

async function progressLine({ client }: Session, payment: Payment): Promise<string> {
  const { phase, paymentId, txid, confirmedHeight } = payment;
  switch (phase) {
    case PaymentPhase.APPROVED:
    case PaymentPhase.SIGNING:
    case PaymentPhase.REJECTED: {
      const votes = await client.getVotes({ paymentId });
      const approvals = votes.ballots.filter(({ verdict }) => verdict === BallotVerdict.APPROVE).length;
      return `${phaseName(phase)}: ${approvals} approvals, ${votes.approvalsNeeded} needed`;
    }
    case PaymentPhase.BROADCAST:
      return `broadcast: ${txid}`;
    case PaymentPhase.CONFIRMED:
      return `confirmed in block ${confirmedHeight}`;
    default:
      return payment.failure === undefined ? phaseName(phase) : `${phaseName(phase)}: ${payment.failure.message}`;
  }
}

/** For example "timed out". */
export function phaseName(phase: PaymentPhase): string {
  return (PaymentPhase[phase] ?? "unknown").toLowerCase().replace("_", " ");
}

function printPayment(session: Session, payment: Payment): void {
  const { failure } = payment;
  const lines = () => [
    ...listed([
      ["payment", payment.paymentId],
      ["phase", phaseName(payment.phase)],
      ...payment.recipients.map(({ address, amountSat }) => ["to", `${address}  ${btcText(amountSat)}`] as const),
      ["txid", payment.txid],
      ["fee", payment.feeSat === 0n ? "" : `${payment.feeSat} sat`],
      ["block", payment.confirmedHeight === 0 ? "" : String(payment.confirmedHeight)],
      ["reason", failure === undefined ? "" : `${failure.message} (${failure.code})`],
      ["to blame", failure?.culprits.join(", ") ?? ""],
    ]),
    ...timeline(payment),
  ];
  show(session, { schema: PaymentSchema, message: payment, lines });
}

function timeline({ timeline: entries }: Payment): string[] {
  if (entries.length === 0) return [];
  const rows = entries.map(({ step, nodeId, durationMs, outcome }) => [
    step,
    nodeId,
    `${durationMs.toFixed(1)} ms`,
    outcome,
  ]);
  return ["", ...aligned([["STEP", "NODE", "TIME", "OUTCOME"], ...rows])];
}

/** Adds `payment show` and `payment watch`. */
export function addPaymentCommands(program: Command, terminal: Terminal): void {
  const parent = program.command("payment").description("payments: show, watch");
  gatewayCommand(parent, "show <payment>")
    .description("where a payment stands, and how long each step took")
    .action((paymentId: string, _options: unknown, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { payment } = await session.client.getPayment({ paymentId });
        if (payment === undefined) throw new InvalidInput("answer-incomplete", "the gateway's answer has no payment");
        printPayment(session, payment);
      }),
    );
  gatewayCommand(parent, "watch <payment>")
    .description("follow a payment until it is confirmed or will never be")
    .option("--timeout <seconds>", "stop watching", CONFIRMATION_TIMEOUT_S)
    .action((paymentId: string, options: { timeout: string }, command: Command) => {
      const timeoutMs = wholeNumber(options.timeout, "--timeout") * 1000;
      return withGateway({ command, terminal }, async (session) => {
        const { payment } = await session.client.getPayment({ paymentId });
        if (payment === undefined) throw new InvalidInput("answer-incomplete", "the gateway's answer has no payment");
        terminal.progress(phaseName(payment.phase));
        printPayment(session, await followed(session, { payment, until: "final", timeoutMs }));
      });
    });
}
