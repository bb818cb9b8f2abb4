import { setFlagsFromString } from "node:v8";

/**
 * Keeps what V8 has compiled. By default it throws away the code of functions that did not run for some collections, so
 * that the first payments after a quiet hour would run interpreted. For processes that serve; called before they do.
 */
export function keepCompiledCode(): void {
  setFlagsFromString("--no-flush-bytecode");
}
