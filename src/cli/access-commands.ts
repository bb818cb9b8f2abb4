import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { calculateJwkThumbprint, exportJWK, SignJWT } from "jose";
import { InvalidInput } from "../crypto/fault.js";
import { SCOPES } from "../gateway/authentication.js";
import { readSecretFile } from "./client-profile.js";
import { wholeNumber } from "./gateway-session.js";
import type { Terminal } from "./terminal.js";

interface IssueOptions {
  readonly key: string;
  readonly subject: string;
  readonly scope: readonly string[];
  readonly audience: string;
  readonly hours: string;
  readonly out: string;
}

const ED25519_BYTES = 32;

/** Adds `token key`, `token issue` and `authority key`: what a client needs to be heard and obeyed. */
export function addAccessCommands(program: Command, terminal: Terminal): void {
  const token = program
    .command("token")
    .description("bearer tokens for the gateway, where no identity provider issues them");
  token
    .command("key")
    .description("make the key pair that signs tokens; the gateway gets the public one (gateway.jwt.keyFiles)")
    .requiredOption("--out <file>", "private key to make; the public one is beside it, ending in .pub.pem")
    .action(async ({ out }: { out: string }) => {
      const { publicKey, privateKey } = generateKeyPairSync("ed25519");
      const publicFile = `${out.replace(/\.pem$/, "")}.pub.pem`;
      await writeNew(out, pem(privateKey), 0o600);
      await writeNew(publicFile, pem(publicKey), 0o644);
      terminal.print(`private key: ${out} (keep it)`);
      terminal.print(`public key:  ${publicFile} (for the gateway)`);
    });
  token
    .command("issue")
    .description("make a token; it is written to a file that only you can read, never printed")
    .requiredOption("--key <file>", "private key from 'token key'")
    .requiredOption("--subject <name>", "who the token is for; calls are counted and logged under this name")
    .addOption(new Option("--scope <scopes...>", "what it allows").choices([...SCOPES]).default(["wallet:read"]))
    .option("--audience <name>", "gateway.jwt.audience of the gateway", "mpc-wallet")
    .option("--hours <count>", "how long it is valid", "12")
    .requiredOption("--out <file>", "token file to make")
    .action((options: IssueOptions) => issueToken(options, terminal));
  program
    .command("authority")
    .description("payment authorities: the keys whose payment requests the nodes obey")
    .command("key")
    .description("make a payment authority's key and show what the nodes need to know of it")
    .requiredOption("--name <name>", "name of the authority")
    .requiredOption("--out <file>", "private key to make")
    .action(async ({ name, out }: { name: string; out: string }) => {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) {
        throw new InvalidInput("option-invalid", "--name is 1 to 63 of A-Z a-z 0-9 . _ -");
      }
      const { publicKey, privateKey } = generateKeyPairSync("ed25519");
      await writeNew(out, pem(privateKey), 0o600);
      const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-ED25519_BYTES).toString("hex");
      terminal.progress(`private key: ${out} (keep it); every node and coordinator needs this in its configuration:`);
      for (const line of ["[[security.authorities]]", `name = "${name}"`, `publicKey = "${raw}"`]) terminal.print(line);
    });
}

async function issueToken(options: IssueOptions, { clock, print }: Terminal): Promise<void> {
  const hours = wholeNumber(options.hours, "--hours");
  if (hours < 1 || hours > 8784) throw new InvalidInput("option-invalid", "--hours is 1 to 8784");
  const key = signingKey(await readSecretFile(options.key, "the token key"), options.key);
  const kid = await calculateJwkThumbprint(await exportJWK(createPublicKey(key)));
  const issuedAtS = Math.floor(clock.nowMs() / 1000);
  const token = await new SignJWT({ scope: options.scope.join(" ") })
    .setProtectedHeader({ alg: "EdDSA", typ: "JWT", kid })
    .setSubject(options.subject)
    .setAudience(options.audience)
    .setIssuedAt(issuedAtS)
    .setExpirationTime(issuedAtS + hours * 3600)
    .sign(key);
  await writeNew(options.out, `${token}\n`, 0o600);
  print(`token for ${options.subject} (${options.scope.join(" ")}), valid ${hours} h: ${options.out}`);
}

function signingKey(text: string, file: string): KeyObject {
  const unusable = () =>
    new InvalidInput("token-key-unusable", `${file} is not an Ed25519 private key in PEM`, { file });
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch {
    throw unusable();
  }
  if (key.asymmetricKeyType !== "ed25519") throw unusable();
  return key;
}

function pem(key: KeyObject): string {
  return key.export({ format: "pem", type: key.type === "private" ? "pkcs8" : "spki" }) as string;
}

/** Never overwrites: a lost key cannot be had back. */
async function writeNew(file: string, content: string, mode: number): Promise<void> {
  try {
    await writeFile(file, content, { mode, flag: "wx" });
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
    throw new InvalidInput(
      "file-not-written",
      `${file} ${exists ? "is there already" : "cannot be written"}`,
      { file },
      cause,
    );
  }
}
