import { dirname, join } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Clock, Random } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { type Certificate, parseCertificatesPem } from "../network/identity/certificate.js";
import { requestFromPem } from "../network/identity/certificate-request.js";
import { MessageIdentity } from "../network/identity/message-identity.js";
import { isNodeId } from "../network/identity/node-id.js";
import { nodeIdOf } from "../network/identity/peer-verifier.js";
import { createNodeRequest, PkiFolder } from "../network/identity/pki-folder.js";
import { renewAtMs, renewalState } from "../network/identity/renewal.js";
import { REVOCATION_REASONS, type RevocationReason } from "../network/identity/revocation-lists.js";
import {
  exists,
  makePrivateFolder,
  readPassphraseFile,
  readText,
  writeNewPublic,
  writeNewSecret,
} from "../network/identity/secret-file.js";
import { loadTlsCredentials, prepareRenewal } from "../network/identity/tls-credentials.js";

const DAY_MS = 24 * 60 * 60 * 1000;
const MAX_NODE_DAYS = 90;
const ROOT_VARIABLE = "MPC_WALLET_ROOT_PASSPHRASE";
const INTERMEDIATE_VARIABLE = "MPC_WALLET_INTERMEDIATE_PASSPHRASE";

export interface PkiCommandDependencies {
  readonly clock: Pick<Clock, "nowMs">;
  readonly random: Random;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly print: (line: string) => void;
}

/**
 * Adds `pki …` to the program. Passphrases come from an environment variable or a 0600 file, never from the command
 * line, where every user of the machine can read them. Nothing is overwritten; no secret is printed.
 */
export function addPkiCommands(program: Command, dependencies: PkiCommandDependencies): void {
  const pki = program
    .command("pki")
    .description("certificates of nodes and coordinators: root -> intermediate -> node");
  addAuthorityCommands(pki, dependencies);
  addNodeCommands(pki, dependencies);
  addIssuingCommands(pki, dependencies);
  addRenewalCommand(pki, dependencies);
  addRevocationCommands(pki, dependencies);
  addReadingCommands(pki, dependencies);
}

interface FolderOptions {
  readonly folder: string;
  readonly json?: boolean;
}

interface PassphraseOptions {
  readonly passphraseEnv?: string;
  readonly passphraseFile?: string;
}

function addAuthorityCommands(pki: Command, dependencies: PkiCommandDependencies): void {
  withFolder(pki.command("init-root"))
    .description("make the root authority (P-384, ten years); afterwards keep its folder offline")
    .option("--name <text>", "common name", "mpc-wallet root")
    .option("--passphrase-env <name>", "environment variable with the root passphrase", ROOT_VARIABLE)
    .option("--passphrase-file <path>", "0600 file with the root passphrase")
    .action(async (options: FolderOptions & PassphraseOptions & { readonly name: string }) => {
      const folder = new PkiFolder(options.folder, dependencies);
      const passphrase = await passphraseFrom(options, dependencies);
      const root = await folder.initRoot({ commonName: options.name, passphrase });
      report(dependencies, options, describe(root, dependencies), [
        `root made: ${folder.paths.rootCertificate} (give this file to every node)`,
        `its key:   ${folder.paths.rootKey} (encrypted; move it offline after 'pki init-intermediate')`,
      ]);
    });

  withFolder(pki.command("init-intermediate"))
    .description("make the intermediate authority (P-384, two years) and its first revocation list")
    .option("--name <text>", "common name", "mpc-wallet intermediate")
    .option("--root-passphrase-env <name>", "environment variable with the root passphrase", ROOT_VARIABLE)
    .option("--root-passphrase-file <path>", "0600 file with the root passphrase")
    .option("--passphrase-env <name>", "environment variable with the intermediate passphrase", INTERMEDIATE_VARIABLE)
    .option("--passphrase-file <path>", "0600 file with the intermediate passphrase")
    .action(
      async (
        options: FolderOptions &
          PassphraseOptions & {
            readonly name: string;
            readonly rootPassphraseEnv?: string;
            readonly rootPassphraseFile?: string;
          },
      ) => {
        const folder = new PkiFolder(options.folder, dependencies);
        const root: PassphraseOptions = {
          ...(options.rootPassphraseEnv === undefined ? {} : { passphraseEnv: options.rootPassphraseEnv }),
          ...(options.rootPassphraseFile === undefined ? {} : { passphraseFile: options.rootPassphraseFile }),
        };
        const rootPassphrase = await passphraseFrom(root, dependencies);
        const passphrase = await passphraseFrom(options, dependencies);
        const made = await folder.initIntermediate({ commonName: options.name, rootPassphrase, passphrase });
        report(dependencies, options, describe(made, dependencies), [
          `intermediate made: ${folder.paths.intermediateCertificate}`,
          `revocation list:   ${folder.paths.revocationList} (renew it within 30 days with 'pki crl')`,
        ]);
      },
    );
}

function addNodeCommands(pki: Command, dependencies: PkiCommandDependencies): void {
  pki
    .command("csr")
    .description("make a node's TLS key and the request for its certificate; run it on the node")
    .requiredOption("--node-id <id>", "node id", nodeIdArgument)
    .option("--out <folder>", "where the key and the request go (default: nodes/<id>)")
    .option("--json", "print JSON")
    .action(async (options: { readonly nodeId: string; readonly out?: string; readonly json?: boolean }) => {
      const folder = options.out ?? join("nodes", options.nodeId);
      const { keyPath, requestPath } = await createNodeRequest({ nodeId: options.nodeId, folder });
      report(dependencies, options, { nodeId: options.nodeId, keyPath, requestPath }, [
        `key:     ${keyPath} (stays on this machine)`,
        `request: ${requestPath} (take it to the authority: 'pki issue --node-id ${options.nodeId} --request …')`,
      ]);
    });

  pki
    .command("identity")
    .description("make a node's Ed25519 message identity and print its public key for the roster")
    .requiredOption("--node-id <id>", "node id", nodeIdArgument)
    .option("--out <folder>", "where the key goes (default: nodes/<id>)")
    .option("--json", "print JSON")
    .action(async (options: { readonly nodeId: string; readonly out?: string; readonly json?: boolean }) => {
      const folder = options.out ?? join("nodes", options.nodeId);
      const keyPath = join(folder, "identity-key.pem");
      const identity = MessageIdentity.generate(options.nodeId, dependencies.random);
      await makePrivateFolder(folder);
      await writeNewSecret(keyPath, identity.toPem());
      const { publicKey } = identity.toJSON();
      report(dependencies, options, { nodeId: options.nodeId, identityKey: publicKey, keyPath }, [
        `key:        ${keyPath} (stays on this machine)`,
        `for roster: identityKey = "${publicKey}"`,
      ]);
    });
}

function addIssuingCommands(pki: Command, dependencies: PkiCommandDependencies): void {
  withIntermediate(pki.command("issue"))
    .description("issue a node certificate (90 days) from a request")
    .requiredOption("--node-id <id>", "for whom; a request for another id is refused", nodeIdArgument)
    .requiredOption("--request <path>", "the request's PEM file")
    .option("--out <path>", "where the chain goes (default: tls-chain.pem beside the request)")
    .option("--days <number>", `lifetime, 1 to ${MAX_NODE_DAYS}`, daysArgument, MAX_NODE_DAYS)
    .action(
      async (
        options: FolderOptions &
          PassphraseOptions & {
            readonly nodeId: string;
            readonly request: string;
            readonly out?: string;
            readonly days: number;
          },
      ) => {
        const folder = new PkiFolder(options.folder, dependencies);
        const requestDer = requestFromPem(await readText(options.request, "the request"));
        const passphrase = await passphraseFrom(options, dependencies);
        const { nodeId } = options;
        const chainPath = options.out ?? join(dirname(options.request), "tls-chain.pem");
        // Before a serial number is spent on a chain that could not be written.
        if (await exists(chainPath)) {
          throw new InvalidInput("file-exists", `${chainPath} exists already: name another file with --out`, {
            chainPath,
          });
        }
        const issued = await folder.issue({ nodeId, requestDer, passphrase, lifetimeMs: options.days * DAY_MS });
        await writeNewPublic(chainPath, issued.chainPem);
        report(dependencies, options, { ...describe(issued.leaf, dependencies), chainPath }, [
          `chain:  ${chainPath} (leaf and intermediate; take it to ${nodeId})`,
          `serial: ${issued.leaf.serialNumber}, good until ${isoDate(issued.leaf.notAfterMs)}`,
        ]);
      },
    );
}

function addRenewalCommand(pki: Command, dependencies: PkiCommandDependencies): void {
  withIntermediate(pki.command("renew"))
    .description("renew a certificate by hand, where the authority's folder and the node's files are on one machine")
    .requiredOption("--node-id <id>", "whose certificate", nodeIdArgument)
    .option("--node-folder <folder>", "where its tls-key.pem and tls-chain.pem lie (default: nodes/<id>)")
    .option("--days <number>", `lifetime, 1 to ${MAX_NODE_DAYS}`, daysArgument, MAX_NODE_DAYS)
    .action(
      async (
        options: FolderOptions &
          PassphraseOptions & { readonly nodeId: string; readonly nodeFolder?: string; readonly days: number },
      ) => {
        const { nodeId } = options;
        const nodeFolder = options.nodeFolder ?? join("nodes", nodeId);
        const paths = {
          nodeId,
          keyPath: join(nodeFolder, "tls-key.pem"),
          chainPath: join(nodeFolder, "tls-chain.pem"),
        };
        // What is renewed must be there and whole; a first certificate is 'pki issue'.
        await loadTlsCredentials(paths);
        const passphrase = await passphraseFrom(options, dependencies);
        const { requestDer, complete } = await prepareRenewal(paths);
        const folder = new PkiFolder(options.folder, dependencies);
        const issued = await folder.issue({ nodeId, requestDer, passphrase, lifetimeMs: options.days * DAY_MS });
        await complete(issued.chainPem);
        report(dependencies, options, { ...describe(issued.leaf, dependencies), chainPath: paths.chainPath }, [
          `renewed: ${paths.chainPath}, over a fresh key; a running process takes it over within the hour`,
          `serial:  ${issued.leaf.serialNumber}, good until ${isoDate(issued.leaf.notAfterMs)}`,
        ]);
      },
    );
}

function addRevocationCommands(pki: Command, dependencies: PkiCommandDependencies): void {
  withIntermediate(pki.command("revoke"))
    .description("revoke certificates and publish a new revocation list")
    .option("--node-id <id>", "every valid certificate of this node", nodeIdArgument)
    .option("--serial <hex>", "one certificate, by its serial number")
    .addOption(reasonOption())
    .action(
      async (
        options: FolderOptions &
          PassphraseOptions & {
            readonly nodeId?: string;
            readonly serial?: string;
            readonly reason: RevocationReason;
          },
      ) => {
        const which = chosenCertificates(options);
        const folder = new PkiFolder(options.folder, dependencies);
        const passphrase = await passphraseFrom(options, dependencies);
        const revoked = await folder.revoke({ which, reason: options.reason, passphrase });
        const serialNumbers = revoked.map(({ serialNumber }) => serialNumber);
        report(dependencies, options, { revoked: serialNumbers, revocationListPath: folder.paths.revocationList }, [
          ...revoked.map(({ serialNumber, nodeId }) => `revoked ${serialNumber} of ${nodeId}`),
          `new list: ${folder.paths.revocationList} (a coordinator that names it tells everybody; else copy it to one member)`,
        ]);
      },
    );

  withFolder(pki.command("revoke-intermediate"))
    .description("revoke the intermediate and all below it (its key is stolen or lost); needs the root")
    .option("--passphrase-env <name>", "environment variable with the root passphrase", ROOT_VARIABLE)
    .option("--passphrase-file <path>", "0600 file with the root passphrase")
    .addOption(reasonOption())
    .action(async (options: FolderOptions & PassphraseOptions & { readonly reason: RevocationReason }) => {
      const folder = new PkiFolder(options.folder, dependencies);
      const rootPassphrase = await passphraseFrom(options, dependencies);
      const { movedTo, serialNumber } = await folder.revokeIntermediate({ reason: options.reason, rootPassphrase });
      const revocationListPath = folder.paths.rootRevocationList;
      report(dependencies, options, { revoked: [serialNumber], revocationListPath, movedTo }, [
        `revoked the intermediate ${serialNumber}; it lies in ${movedTo} now`,
        `root's list: ${revocationListPath} (copy it to one member whose revocationListFiles name it)`,
        "next: 'pki init-intermediate', then a new certificate for every node",
      ]);
    });

  withIntermediate(pki.command("crl"))
    .description("sign the revocation list again, with a later next update")
    .action(async (options: FolderOptions & PassphraseOptions) => {
      const folder = new PkiFolder(options.folder, dependencies);
      const passphrase = await passphraseFrom(options, dependencies);
      const { number } = await folder.publishRevocations({ passphrase });
      const revocationListPath = folder.paths.revocationList;
      report(dependencies, options, { number, revocationListPath }, [`list ${number}: ${revocationListPath}`]);
    });
}

function addReadingCommands(pki: Command, dependencies: PkiCommandDependencies): void {
  withFolder(pki.command("list"))
    .description("every certificate issued here, with its state")
    .action(async (options: FolderOptions) => {
      const nowMs = dependencies.clock.nowMs();
      const rows = (await new PkiFolder(options.folder, dependencies).list()).map((entry) => ({
        nodeId: entry.nodeId,
        serialNumber: entry.serialNumber,
        notAfter: isoDate(entry.notAfterMs),
        state: entry.revoked === undefined ? renewalState(entry, nowMs) : `revoked (${entry.revoked.reason})`,
      }));
      const lines = rows.map((row) => `${row.nodeId}  ${row.serialNumber}  until ${row.notAfter}  ${row.state}`);
      report(dependencies, options, { certificates: rows }, lines.length === 0 ? ["no certificate issued yet"] : lines);
    });

  pki
    .command("show")
    .description("what the certificates in a PEM file say")
    .argument("<file>", "PEM file")
    .option("--json", "print JSON")
    .action(async (path: string, options: { readonly json?: boolean }) => {
      const certificates = parseCertificatesPem(await readText(path, "the certificate file"));
      const described = certificates.map((certificate) => describe(certificate, dependencies));
      const lines = described.flatMap((entry) => [
        ...Object.entries(entry).map(([key, value]) => `${key.padEnd(14)} ${value}`),
        "",
      ]);
      report(dependencies, options, { certificates: described }, lines.slice(0, -1));
    });
}

function reasonOption(): Option {
  return new Option("--reason <reason>", "why").choices(Object.keys(REVOCATION_REASONS)).default("unspecified");
}

function withFolder(command: Command): Command {
  return command.option("--folder <path>", "the authority's folder", "pki").option("--json", "print JSON");
}

function withIntermediate(command: Command): Command {
  return withFolder(command)
    .option("--passphrase-env <name>", "environment variable with the intermediate passphrase", INTERMEDIATE_VARIABLE)
    .option("--passphrase-file <path>", "0600 file with the intermediate passphrase");
}

async function passphraseFrom(options: PassphraseOptions, { environment }: PkiCommandDependencies): Promise<string> {
  const { passphraseEnv, passphraseFile } = options;
  const passphrase =
    passphraseFile === undefined ? environment[passphraseEnv ?? ""] : await readPassphraseFile(passphraseFile);
  if (passphrase !== undefined && passphrase !== "") return passphrase;
  throw new InvalidInput(
    "passphrase-missing",
    passphraseFile === undefined
      ? `no passphrase: set the environment variable ${passphraseEnv} or name a 0600 file with the -file option`
      : `no passphrase: ${passphraseFile} is empty`,
  );
}

function chosenCertificates(options: { readonly nodeId?: string; readonly serial?: string }) {
  const { nodeId, serial } = options;
  if (nodeId !== undefined && serial === undefined) return { nodeId };
  if (serial !== undefined && nodeId === undefined) {
    return { serialNumber: serial.toLowerCase().replaceAll(":", "") };
  }
  throw new InvalidInput("nothing-to-revoke", "say which: either --node-id or --serial");
}

function describe(certificate: Certificate, { clock }: PkiCommandDependencies): Record<string, string> {
  const nodeId = nodeIdOf(certificate);
  return {
    subject: certificate.commonNames.join(", "),
    role: certificate.isAuthority ? "authority" : "node",
    ...(nodeId === undefined ? {} : { nodeId }),
    issuer: certificate.native.issuer.replaceAll("\n", ", "),
    serialNumber: certificate.serialNumber,
    notBefore: isoDate(certificate.notBeforeMs),
    notAfter: isoDate(certificate.notAfterMs),
    renewAt: isoDate(renewAtMs(certificate)),
    state: renewalState(certificate, clock.nowMs()),
    fingerprint: certificate.fingerprint,
  };
}

function report(
  { print }: PkiCommandDependencies,
  { json }: { readonly json?: boolean },
  value: unknown,
  lines: readonly string[],
): void {
  if (json === true) print(JSON.stringify(value, undefined, 2));
  else for (const line of lines) print(line);
}

function nodeIdArgument(text: string): string {
  if (isNodeId(text)) return text;
  throw new InvalidArgumentError("a node id is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end");
}

function daysArgument(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 1 && days <= MAX_NODE_DAYS) return days;
  throw new InvalidArgumentError(`a whole number of days, 1 to ${MAX_NODE_DAYS}`);
}

function isoDate(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
