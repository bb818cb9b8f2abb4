import { type Command, Option } from "commander";
import {
  AddressSchema,
  BallotVerdict,
  GetBalanceResponseSchema,
  GetHealthResponseSchema,
  GetPoolStatusResponseSchema,
  GetVotesResponseSchema,
  ListPaymentsResponseSchema,
  ListUtxosResponseSchema,
  ListWalletsResponseSchema,
  Network,
  Scheme,
  VoteOutcome,
  type Wallet,
  WalletSchema,
} from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { InvalidInput } from "../crypto/fault.js";
import { btcText } from "./amount.js";
import { addChangeCommands, changeNote } from "./change-commands.js";
import {
  gatewayCommand,
  type Session,
  show,
  type WalletOptions,
  walletOption,
  wholeNumber,
  withGateway,
} from "./gateway-session.js";
import { addPaymentCommands, addSendCommand, phaseName } from "./payment-commands.js";
import { preparationLine, toldWhileMade } from "./preparation-line.js";
import { aligned, listed, type Terminal } from "./terminal.js";

/** Between two lines about a wallet that is being made. */
const PROGRESS_MS = 2_000;

/** Adds the commands of a wallet's user: `wallet …`, `payment …`, `pool status`, `health`, and short names for some. */
export function addWalletCommands(program: Command, terminal: Terminal): void {
  const wallet = program.command("wallet").description("wallets: create, list, receive, pay");
  addCreateCommand(wallet, terminal);
  addListCommand(wallet, terminal);
  addShowCommand(wallet, terminal);
  addUtxosCommand(wallet, terminal);
  addChangeCommands(wallet, terminal);
  for (const parent of [wallet, program]) {
    addAddressCommand(parent, terminal);
    addBalanceCommand(parent, terminal);
    addSendCommand(parent, terminal);
    addHistoryCommand(parent, terminal);
  }
  addVotesCommand(wallet, terminal);
  addPaymentCommands(program, terminal);
  addPoolCommands(program, terminal);
  addHealthCommand(program, terminal);
}

function addCreateCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "create")
    .description("create a wallet: its nodes generate a key that none of them ever holds")
    .requiredOption("--name <name>", "shown to people, unique")
    .addOption(
      new Option("--scheme <scheme>", "frost: Taproot; cggmp24: SegWit").choices(["frost", "cggmp24"]).default("frost"),
    )
    .option("--threshold <count>", "nodes that must sign", "3")
    .option("--nodes <ids>", "comma-separated node ids; all nodes when left out")
    .action(async (options: { name: string; scheme: string; threshold: string; nodes?: string }, command: Command) => {
      const threshold = wholeNumber(options.threshold, "--threshold");
      const parties = options.nodes?.split(",").map((id) => id.trim()) ?? [];
      const scheme = options.scheme === "frost" ? Scheme.FROST : Scheme.CGGMP24;
      await withGateway({ command, terminal }, async (session) => {
        terminal.progress("the nodes generate the key");
        const order = { name: options.name, scheme, threshold, parties };
        const told = { name: options.name, intervalMs: PROGRESS_MS, tell: (line: string) => terminal.progress(line) };
        const { wallet } = await toldWhileMade(session.client, told, () => session.client.createWallet(order));
        printWallet(session, wallet);
      });
    });
}

function printWallet(session: Session, wallet: Wallet | undefined, change = ""): void {
  if (wallet === undefined) throw new InvalidInput("answer-incomplete", "the gateway's answer has no wallet");
  const lines = () =>
    listed([
      ["wallet", wallet.walletId],
      ["name", wallet.name],
      ["scheme", schemeName(wallet.scheme)],
      ["network", Network[wallet.network]?.toLowerCase() ?? ""],
      ["signers", `${wallet.threshold} of ${wallet.parties.length}`],
      ["nodes", wallet.parties.join(", ")],
      ["epoch", String(wallet.epoch)],
      ["change", change],
      ["group key", Buffer.from(wallet.groupKey).toString("hex")],
      ["created", new Date(Number(wallet.createdAtMs)).toISOString()],
    ]);
  show(session, { schema: WalletSchema, message: wallet, lines });
}

function schemeName(scheme: Scheme): string {
  return Scheme[scheme]?.toLowerCase() ?? "";
}

function addListCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "list")
    .description("list the wallets")
    .action((_options: unknown, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const message = await session.client.listWallets({ pageSize: 1000 });
        const rows = message.wallets.map((one) => [
          one.walletId,
          one.name,
          schemeName(one.scheme),
          `${one.threshold} of ${one.parties.length}`,
        ]);
        const lines = () => aligned([["WALLET", "NAME", "SCHEME", "SIGNERS"], ...rows]);
        show(session, { schema: ListWalletsResponseSchema, message, lines });
      }),
    );
}

function addShowCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "show")
    .description("show a wallet")
    .addOption(walletOption())
    .action((options: WalletOptions, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const wallet = await session.wallet(options.wallet);
        const { change } = await session.client.getWalletChange({ walletId: wallet.walletId });
        printWallet(session, wallet, changeNote(change));
      }),
    );
}

function addAddressCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "address")
    .description("the next unused receiving address")
    .addOption(walletOption())
    .action((options: WalletOptions, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { walletId } = await session.wallet(options.wallet);
        const { address } = await session.client.newAddress({ walletId });
        if (address === undefined) throw new InvalidInput("answer-incomplete", "the gateway's answer has no address");
        show(session, { schema: AddressSchema, message: address, lines: () => [address.address] });
      }),
    );
}

function addBalanceCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "balance")
    .description("what a wallet holds")
    .addOption(walletOption())
    .action((options: WalletOptions, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { walletId } = await session.wallet(options.wallet);
        const message = await session.client.getBalance({ walletId });
        const lines = () =>
          listed([
            ["confirmed", btcText(message.confirmedSat)],
            ["unconfirmed", btcText(message.unconfirmedSat)],
            ["reserved", btcText(message.reservedSat)],
            ["tip", `block ${message.tipHeight}`],
          ]);
        show(session, { schema: GetBalanceResponseSchema, message, lines });
      }),
    );
}

function addUtxosCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "utxos")
    .description("unspent outputs of a wallet")
    .addOption(walletOption())
    .action((options: WalletOptions, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { walletId } = await session.wallet(options.wallet);
        const message = await session.client.listUtxos({ walletId, pageSize: 1000 });
        const rows = message.utxos.map((utxo) => [
          `${utxo.txid}:${utxo.vout}`,
          btcText(utxo.valueSat),
          String(utxo.confirmations),
          `${utxo.path}${utxo.reserved ? " (reserved)" : ""}`,
        ]);
        const more = message.nextPageToken === "" ? [] : ["(the first 1000 are shown)"];
        const lines = () => [...aligned([["OUTPUT", "VALUE", "CONFIRMATIONS", "PATH"], ...rows]), ...more];
        show(session, { schema: ListUtxosResponseSchema, message, lines });
      }),
    );
}

function addHistoryCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "history")
    .description("payments of a wallet, newest first")
    .addOption(walletOption())
    .option("--limit <count>", "at most this many, 1 to 100", "20")
    .option("--before <token>", "older ones, from the page before")
    .action((options: WalletOptions & { limit: string; before?: string }, command: Command) => {
      const pageSize = wholeNumber(options.limit, "--limit");
      return withGateway({ command, terminal }, async (session) => {
        const { walletId } = await session.wallet(options.wallet);
        const message = await session.client.listPayments({ walletId, pageSize, pageToken: options.before ?? "" });
        const rows = message.payments.map((payment) => [
          payment.paymentId,
          phaseName(payment.phase),
          btcText(payment.recipients.reduce((sum, { amountSat }) => sum + amountSat, 0n)),
          new Date(Number(payment.createdAtMs)).toISOString(),
          payment.txid,
        ]);
        const next = message.nextPageToken === "" ? [] : [`older ones: --before ${message.nextPageToken}`];
        const lines = () => [...aligned([["PAYMENT", "PHASE", "AMOUNT", "CREATED", "TXID"], ...rows]), ...next];
        show(session, { schema: ListPaymentsResponseSchema, message, lines });
      });
    });
}

function addVotesCommand(parent: Command, terminal: Terminal): void {
  gatewayCommand(parent, "votes <payment>")
    .description("how the nodes voted on a payment")
    .action((paymentId: string, _options: unknown, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const message = await session.client.getVotes({ paymentId });
        const approvals = message.ballots.filter(({ verdict }) => verdict === BallotVerdict.APPROVE).length;
        const rows = message.ballots.map((ballot) => [
          ballot.voter,
          BallotVerdict[ballot.verdict]?.toLowerCase() ?? "",
          ballot.verdict === BallotVerdict.NONE ? "" : `${ballot.durationMs.toFixed(1)} ms`,
          ballot.reasons.join(", "),
        ]);
        const lines = () => [
          `${VoteOutcome[message.outcome]?.toLowerCase().replace("_", " ")}: ${approvals} approve, ${message.approvalsNeeded} needed`,
          ...aligned([["NODE", "VOTE", "TIME", "REASONS"], ...rows]),
        ];
        show(session, { schema: GetVotesResponseSchema, message, lines });
      }),
    );
}

function addPoolCommands(program: Command, terminal: Terminal): void {
  const pool = program.command("pool").description("presignatures and nonces that wait for use");
  gatewayCommand(pool, "status")
    .description("how full a wallet's pool is")
    .addOption(walletOption())
    .action((options: WalletOptions, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const { walletId } = await session.wallet(options.wallet);
        const message = await session.client.getPoolStatus({ walletId });
        const lines = () =>
          listed([
            ["available", `${message.available} of ${message.target}`],
            ["in use", String(message.inUse)],
            ["failed", String(message.failed)],
            ["minimum", String(message.minimum)],
          ]);
        show(session, { schema: GetPoolStatusResponseSchema, message, lines });
      }),
    );
}

function addHealthCommand(program: Command, terminal: Terminal): void {
  gatewayCommand(program, "health")
    .description("whether payments can be made, and what does not answer")
    .action((_options: unknown, command: Command) =>
      withGateway({ command, terminal }, async (session) => {
        const message = await session.client.getHealth({});
        const rows = message.parts.map(({ name, healthy, detail }) => [name, healthy ? "ok" : "FAILED", detail]);
        const lines = () => [
          message.healthy ? "healthy: payments can be made" : "not healthy: payments cannot be made now",
          ...aligned([...rows, ["leader", message.leader === "" ? "none" : message.leader, ""]]),
          ...message.preparations.map((made) => `making wallet ${made.name}: ${preparationLine(made)}`),
        ];
        show(session, { schema: GetHealthResponseSchema, message, lines });
        if (!message.healthy) process.exitCode = 1;
      }),
    );
}
