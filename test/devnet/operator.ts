// An operator at the command line of a devnet: every word goes through `mpc-wallet` in a process of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import type { Devnet } from "../../src/devnet/devnet.js";

const MAIN = resolve("dist/src/cli/main.js");
const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/** What `--json` printed. */
export type Answer = Readonly<Record<string, unknown>>;

export class Operator {
  readonly #devnet: Devnet;

  constructor(devnet: Devnet) {
    this.#devnet = devnet;
  }

  /** Waits until a coordinator leads and the nodes answer it. */
  async whenReady(): Promise<void> {
    for (let wait = 0; wait < 60; wait++) {
      const { code, out } = await this.#run(["health"]);
      if (code === 0 && (JSON.parse(out) as Answer)["leader"] !== "") return;
      await new Promise((done) => setTimeout(done, 250));
    }
    assert.fail("the devnet did not become healthy");
  }

  /** Runs a command that must succeed. */
  async runs(...words: readonly string[]): Promise<Answer> {
    const { code, out, err } = await this.#run(words);
    assert.equal(code, 0, `mpc-wallet ${words.join(" ")}: ${err}`);
    return JSON.parse(out) as Answer;
  }

  async #run(words: readonly string[]) {
    const child = spawn(process.execPath, [MAIN, ...words, "--json"], {
      env: { ...process.env, MPC_WALLET_CONFIG: this.#devnet.paths.clientConfig },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said = { out: "", err: "" };
    child.stdout.on("data", (chunk) => {
      said.out += String(chunk);
    });
    child.stderr.on("data", (chunk) => {
      said.err += String(chunk);
    });
    const code = await new Promise<number | null>((done) => child.once("close", done));
    return { code, ...said };
  }

  /** Makes a wallet with confirmed coins. */
  async makesWallet(name: string, ...options: readonly string[]): Promise<Answer> {
    const wallet = await this.runs("wallet", "create", "--name", name, ...options);
    await this.#devnet.faucet(await this.addressOf(name), 10_000_000n);
    return wallet;
  }

  async addressOf(name: string): Promise<string> {
    return String((await this.runs("address", "--wallet", name))["address"]);
  }

  /** Pays and waits for the confirmation; the chain mines meanwhile. */
  async pays(name: string): Promise<void> {
    const order = ["send", OUTSIDE, "--wallet", name, "--amount-sat", "150000", "--wait", "--timeout", "240"];
    let isOver = false;
    const sent = this.runs(...order).finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await Promise.race([sent, new Promise((done) => setTimeout(done, 500))]);
      await this.#devnet.mine(1);
    }
    assert.match(String((await sent)["phase"]), /CONFIRMED$/);
  }
}
