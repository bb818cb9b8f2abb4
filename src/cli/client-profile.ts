import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InvalidInput } from "../crypto/fault.js";
import { environment, ms, path } from "../node/configuration.js";
import { loadConfiguration } from "./configuration-file.js";
import type { Terminal } from "./terminal.js";

/** A client's configuration: which gateway, whose token, whose payment authority. See deploy/config/client.toml. */
export function clientProfileSchema(folder: string) {
  return z.strictObject({
    gateway: z.strictObject({
      url: z.url({ protocol: /^https$/ }),
      caFile: path(folder).optional(),
      tokenFile: path(folder).optional(),
      tokenEnvironment: environment().default("MPC_WALLET_TOKEN"),
      callTimeoutMs: ms(100, 3_600_000).default(300_000),
    }),
    authority: z
      .strictObject({
        name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/),
        keyFile: path(folder),
      })
      .optional(),
    defaults: z
      .strictObject({
        wallet: z.string().min(1).max(64).optional(),
        maxFeeRateSatPerVb: z.union([z.int().min(1), z.number().min(0.001)]).default(100),
        requestLifetimeMs: ms(1000, 7 * 86_400_000).default(3_600_000),
      })
      .prefault({}),
  });
}

export type ClientProfile = z.output<ReturnType<typeof clientProfileSchema>>;

/** Where a profile is looked for when `--config` and MPC_WALLET_CONFIG are not given. */
const PLACES = ["client.toml", join(".devnet", "client.toml")];

/** @throws InvalidInput "profile-missing" and those of `loadConfiguration` */
export async function loadClientProfile(
  config: string | undefined,
  { environment }: Pick<Terminal, "environment">,
): Promise<ClientProfile> {
  const file = config ?? environment["MPC_WALLET_CONFIG"] ?? PLACES.find((place) => existsSync(place));
  if (file === undefined) {
    const message = `no client profile: give --config FILE or MPC_WALLET_CONFIG, or make ${PLACES.join(" or ")}`;
    throw new InvalidInput("profile-missing", message);
  }
  return loadConfiguration(file, clientProfileSchema);
}

/** The bearer token: from the environment if it is there, else from the file. */
export async function readToken(
  { gateway }: ClientProfile,
  { environment }: Pick<Terminal, "environment">,
): Promise<string> {
  const fromEnvironment = environment[gateway.tokenEnvironment];
  if (fromEnvironment !== undefined && fromEnvironment !== "") return fromEnvironment.trim();
  if (gateway.tokenFile === undefined) {
    const message = `no token: set ${gateway.tokenEnvironment}, or gateway.tokenFile in the profile`;
    throw new InvalidInput("token-missing", message);
  }
  return (await readSecretFile(gateway.tokenFile, "the token")).trim();
}

/** A small file that nobody else may read. @throws InvalidInput "secret-unreadable", "secret-exposed" */
export async function readSecretFile(file: string, what: string): Promise<string> {
  let mode: number;
  let text: string;
  try {
    ({ mode } = await stat(file));
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new InvalidInput("secret-unreadable", `cannot read ${what} from ${file}`, { file }, cause);
  }
  if (process.platform !== "win32" && (mode & 0o077) !== 0) {
    throw new InvalidInput("secret-exposed", `other users can read ${what}; run: chmod 600 ${file}`, { file });
  }
  return text;
}
