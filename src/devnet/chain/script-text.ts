/** Scripts as people read them. */
import { script } from "bitcoinjs-lib";

/** Opcode names and pushed data in hex; "[error]" for a script that does not parse. */
export function disassemble(bytes: Uint8Array): string {
  if (bytes.length === 0) return "";
  try {
    return script.toASM(bytes);
  } catch {
    return "[error]";
  }
}
