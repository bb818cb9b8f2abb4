import { Code, ConnectError } from "@connectrpc/connect";
import type { Command } from "commander";
import type { SignedWalletChange } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import {
  type Wallet,
  type WalletChange,
  WalletChangeSchema,
  WalletChangeState,
} from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { type ChangeKind, signWalletChange } from "../consensus/wallet-change.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { paymentAuthority } from "./gateway-client.js";
import { type GlobalOptions, gatewayCommand, type Session, show, wholeNumber, withGateway } from "./gateway-session.js";
import { pause, uuid } from "./payment-commands.js";
import { listed, type Terminal } from "./terminal.js";

interface ChangeOptions extends GlobalOptions {
  readonly yes?: boolean;
  readonly giveUpUnfinished?: boolean;
  readonly wait: boolean;
  readonly timeout: string;
}

interface ReshareOptions extends ChangeOptions {
  readonly threshold: string;
  readonly nodes: string;
}

/** Who is to hold the wallet, and how many sign. */
interface Terms {
  readonly kind: ChangeKind;
  readonly threshold: number;
  readonly parties: readonly string[];
}

const POLL_MS = 500;
const RETRY_AFTER_MS = 500;
const SUBMIT_ATTEMPTS_MAX = 4;
/** Safe primes of a SegWit wallet take minutes when none are in stock. */
const TIMEOUT_S = "1800";

/** Adds `refresh`, `reshare` and `change`: new shares of a wallet's key, the same address. */
export function addChangeCommands(parent: Command, terminal: Terminal): void {
  const orderCommand = (usage: string): Command =>
    gatewayCommand(parent, usage)
      .option("--yes", "do not ask")
      .option(
        "--give-up-unfinished",
        "take the place of a change that cannot end because one of its nodes is gone for good",
      )
      .option("--no-wait", "return as soon as the order is recorded")
      .option("--timeout <seconds>", "stop waiting; the change goes on", TIMEOUT_S);
  orderCommand("refresh [wallet]")
    .description("replace every share of a wallet's key; address, nodes and threshold stay, old shares become useless")
    .action((wallet: string | undefined, options: ChangeOptions, command: Command) =>
      order({ command, terminal, options }, wallet, ({ threshold, parties }) => ({
        kind: "refresh",
        threshold,
        parties,
      })),
    );
  orderCommand("reshare [wallet]")
    .description("give a wallet to other nodes or another threshold; the address stays, old shares become useless")
    .requiredOption("--threshold <count>", "nodes that must sign afterwards")
    .requiredOption("--nodes <ids>", "comma-separated node ids that hold it afterwards")
    .action((wallet: string | undefined, options: ReshareOptions, command: Command) => {
      const threshold = wholeNumber(options.threshold, "--threshold");
      const parties = nodeIds(options.nodes);
      if (threshold < 2 || threshold > parties.length) {
        const message = `--threshold must be 2 to ${parties.length}, the number of --nodes`;
        throw new InvalidInput("option-invalid", message);
      }
      return order({ command, terminal, options }, wallet, () => ({ kind: "reshare", threshold, parties }));
    });
  gatewayCommand(parent, "change [wallet]")
    .description("how far the last refresh or reshare of a wallet is")
    .action((given: string | undefined, _options: unknown, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { walletId, name } = await session.wallet(given);
        const { change } = await session.client.getWalletChange({ walletId });
        if (change === undefined) {
          throw new InvalidInput("change-unknown", `the shares of '${name}' were never refreshed or reshared`);
        }
        printChange(session, change);
      }),
    );
}

function nodeIds(text: string): readonly string[] {
  const ids = text.split(",").map((id) => id.trim());
  const repeated = ids.find((id, place) => ids.indexOf(id) !== place);
  if (repeated !== undefined) throw new InvalidInput("option-invalid", `--nodes names '${repeated}' twice`);
  if (ids.includes("")) throw new InvalidInput("option-invalid", "--nodes is a list such as node-1,node-2,node-3");
  return ids;
}

async function order(
  { command, terminal, options }: { command: Command; terminal: Terminal; options: ChangeOptions },
  given: string | undefined,
  termsOf: (wallet: Wallet) => Terms,
): Promise<void> {
  const timeoutMs = wholeNumber(options.timeout, "--timeout") * 1000;
  await withGateway({ command, terminal }, async (session) => {
    const wallet = await session.wallet(given);
    const terms = termsOf(wallet);
    if (options.yes !== true) await askFirst(session, wallet, terms);
    const recorded = await submit(
      session,
      await signed(session, wallet, { ...terms, supersedes: options.giveUpUnfinished === true }),
    );
    terminal.progress(`${terms.kind} ${recorded.requestId} is recorded`);
    const change = options.wait ? await followed(session, recorded, timeoutMs) : recorded;
    if (change.state === WalletChangeState.ABANDONED) {
      const message = `the ${terms.kind} was abandoned: ${change.message} (${change.code})`;
      throw new Unavailable("change-abandoned", message, { walletId: wallet.walletId });
    }
    printChange(session, change);
  });
}

/** What is about to happen, old beside new: a threshold that is lowered by mistake is a wallet that is easier to rob. */
async function askFirst({ terminal }: Session, wallet: Wallet, { kind, threshold, parties }: Terms): Promise<void> {
  const joins = parties.filter((nodeId) => !wallet.parties.includes(nodeId));
  const leaves = wallet.parties.filter((nodeId) => !parties.includes(nodeId));
  const lines = listed([
    ["wallet", `${wallet.name} (${wallet.walletId})`],
    ["now", `${wallet.threshold} of ${wallet.parties.length}: ${wallet.parties.join(", ")}`],
    [`after`, `${threshold} of ${parties.length}: ${parties.join(", ")}`],
    ["join", joins.join(", ")],
    ["leave", leaves.join(", ")],
    ["note", threshold < wallet.threshold ? "fewer nodes than now will be able to spend" : ""],
  ]);
  const answer = await terminal.confirm([`${kind} this wallet?`, ...lines, "yes or no: "].join("\n"));
  if (answer === true) return;
  if (answer === undefined) {
    throw new InvalidInput("option-invalid", "nobody can be asked here; look at the terms and say --yes");
  }
  throw new InvalidInput("not-confirmed", "nothing was ordered");
}

async function signed(
  session: Session,
  wallet: Wallet,
  terms: Terms & { readonly supersedes: boolean },
): Promise<SignedWalletChange> {
  const { client, profile, terminal } = session;
  const { walletId, epoch: baseEpoch, keyDigest: baseKeyDigest } = wallet;
  const signer = await paymentAuthority(profile);
  const { changeCount } = await client.getWalletChange({ walletId });
  const createdAtMs = Math.floor(terminal.clock.nowMs());
  const expiresAtMs = createdAtMs + profile.defaults.requestLifetimeMs;
  const base = { walletId, baseEpoch, baseKeyDigest, changeCount };
  return signWalletChange({ requestId: uuid(terminal), ...base, ...terms, createdAtMs, expiresAtMs }, signer);
}

/** The same bytes are one order, so an unclear answer is asked again. */
async function submit({ client, terminal }: Session, change: SignedWalletChange): Promise<WalletChange> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const answer = await client.changeWallet({ change });
      if (answer.change !== undefined) return answer.change;
      throw new InvalidInput("answer-incomplete", "the gateway's answer has no change");
    } catch (error) {
      if (attempt === SUBMIT_ATTEMPTS_MAX || ConnectError.from(error).code !== Code.Unavailable) throw error;
      terminal.progress("the gateway does not answer; asking again");
      await pause(terminal, RETRY_AFTER_MS * attempt);
    }
  }
}

/** Until the nodes have switched, or will not; nodes that are away are not waited for. */
async function followed(session: Session, recorded: WalletChange, timeoutMs: number): Promise<WalletChange> {
  const { client, terminal } = session;
  const { walletId, requestId } = recorded;
  const endMs = terminal.clock.monotonicMs() + timeoutMs;
  let last = recorded;
  let said = "";
  while (last.state === WalletChangeState.RUNNING) {
    const line = progressLine(last);
    if (line !== "" && line !== said) terminal.progress(line);
    said = line;
    if (terminal.clock.monotonicMs() > endMs) {
      const message = `the change is still running after ${timeoutMs / 1000} s (${line}); it goes on without us`;
      throw new Unavailable("still-waiting", message, { requestId });
    }
    await pause(terminal, POLL_MS);
    try {
      const { change } = await client.getWalletChange({ walletId });
      if (change !== undefined && change.requestId !== requestId) {
        throw new InvalidInput("change-other-base", "another order took this one's place");
      }
      last = change ?? last;
    } catch (error) {
      if (error instanceof InvalidInput) throw error;
      if (ConnectError.from(error).code !== Code.Unavailable) throw error;
      terminal.progress("the gateway does not answer; asking again");
    }
  }
  return last;
}

function progressLine({ step, waitingFor, message }: WalletChange): string {
  const waiting = waitingFor.length === 0 ? "" : `: ${waitingFor.join(", ")}`;
  const trouble = message === "" ? "" : ` (last try: ${message})`;
  return step === "" ? "" : `${step}${waiting}${trouble}`;
}

/** One line beside other facts of a wallet; empty when there is nothing to say. */
export function changeNote(change: WalletChange | undefined): string {
  if (change === undefined) return "";
  const owing = change.owing.length === 0 ? "" : `; not told yet: ${change.owing.join(", ")}`;
  if (change.state === WalletChangeState.RUNNING) return `${STATES[change.state]}; ${progressLine(change)}`;
  return change.state === WalletChangeState.SWITCHED && owing !== "" ? `${STATES[change.state]}${owing}` : "";
}

const STATES: Readonly<Record<WalletChangeState, string>> = {
  [WalletChangeState.UNSPECIFIED]: "unknown",
  [WalletChangeState.RUNNING]: "running: the old shares sign",
  [WalletChangeState.SWITCHED]: "switched: the new shares sign",
  [WalletChangeState.ABANDONED]: "abandoned: the old shares sign",
};

function printChange(session: Session, change: WalletChange): void {
  const lines = () =>
    listed([
      ["wallet", change.walletId],
      ["order", change.requestId],
      ["state", STATES[change.state]],
      ["signers", `${change.threshold} of ${change.parties.length}`],
      ["nodes", change.parties.join(", ")],
      ["epoch", String(change.epoch)],
      ["tries", String(change.attempt)],
      ["now", progressLine(change)],
      ["reason", change.code === "" ? "" : `${change.message} (${change.code})`],
      ["not told yet", change.owing.join(", ")],
    ]);
  show(session, { schema: WalletChangeSchema, message: change, lines });
}
