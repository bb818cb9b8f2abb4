import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Command, Option } from "commander";
import type { Wallet } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { InvalidInput } from "../crypto/fault.js";
import { type ClientProfile, loadClientProfile } from "./client-profile.js";
import { type GatewayClient, openGateway } from "./gateway-client.js";
import type { Terminal } from "./terminal.js";

/** Options of every command that calls a gateway. */
export interface GlobalOptions {
  readonly config?: string;
  readonly json?: boolean;
}

export interface WalletOptions extends GlobalOptions {
  readonly wallet?: string;
}

/** What a command works with; `wallet` asks the gateway which wallet `--wallet` means. */
export interface Session {
  readonly terminal: Terminal;
  readonly profile: ClientProfile;
  readonly client: GatewayClient["wallet"];
  readonly json: boolean;
  wallet(given: string | undefined): Promise<Wallet>;
}

/** Opens the gateway of the profile, runs the command's work and closes the connection. */
export async function withGateway(
  { command, terminal }: { command: Command; terminal: Terminal },
  work: (session: Session) => Promise<void>,
): Promise<void> {
  const { config, json = false } = command.optsWithGlobals<GlobalOptions>();
  const profile = await loadClientProfile(config, terminal);
  const gateway = await openGateway(profile, terminal);
  const client = gateway.wallet;
  const session: Session = {
    terminal,
    profile,
    client,
    json,
    wallet: (given) => chosenWallet(client, given ?? profile.defaults.wallet),
  };
  try {
    await work(session);
  } finally {
    gateway.close();
  }
}

/** A command that calls a gateway; `--config` and `--json` may also stand before its name. */
export function gatewayCommand(parent: Command, usage: string): Command {
  return parent
    .command(usage)
    .option("--config <file>", "client profile (TOML); see deploy/config/client.toml")
    .option("--json", "print one JSON object");
}

export function walletOption(): Option {
  return new Option("--wallet <id or name>", "which wallet; not needed when there is one");
}

/** The wallet with this id or name; without either, the only one. */
async function chosenWallet(client: Session["client"], given: string | undefined): Promise<Wallet> {
  const wallets: Wallet[] = [];
  let pageToken = "";
  do {
    const answer = await client.listWallets({ pageSize: 1000, pageToken });
    wallets.push(...answer.wallets);
    pageToken = answer.nextPageToken;
  } while (pageToken !== "");
  const chosen =
    given === undefined ? wallets : wallets.filter(({ walletId, name }) => walletId === given || name === given);
  const [first] = chosen;
  if (first !== undefined && chosen.length === 1) return first;
  if (given !== undefined) throw new InvalidInput("wallet-unknown", `there is no wallet '${given}'`);
  if (first === undefined) {
    throw new InvalidInput(
      "wallet-missing",
      "there is no wallet yet; make one with 'mpc-wallet wallet create --name NAME'",
    );
  }
  throw new InvalidInput("wallet-ambiguous", `say which with --wallet: ${wallets.map(({ name }) => name).join(", ")}`);
}

/** Prints a message as one JSON object, or the lines made for people. */
export function show<Desc extends DescMessage>(
  { terminal, json }: Pick<Session, "terminal" | "json">,
  { schema, message, lines }: { schema: Desc; message: MessageShape<Desc>; lines: () => readonly string[] },
): void {
  if (json) terminal.print(JSON.stringify(toJson(schema, message, { alwaysEmitImplicit: true })));
  else for (const line of lines()) terminal.print(line);
}

/** @throws InvalidInput "option-invalid" */
export function wholeNumber(text: string, option: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidInput("option-invalid", `${option} must be a whole number`);
  return Number(text);
}
