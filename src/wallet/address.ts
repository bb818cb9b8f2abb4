import { address as addressCodec } from "bitcoinjs-lib";
import type { AddressType } from "../consensus/policy.js";
import { InvalidInput } from "../crypto/fault.js";
import { NETWORK_NAMES, networkParameters } from "./network.js";
import type { NetworkName } from "./wallet-application.js";

/** Addresses and the scripts that they stand for. */

/** The type of an output script; undefined for anything that has no address here. */
export function scriptType(script: Uint8Array): AddressType | undefined {
  const [first, second] = script;
  if (script.length === 22 && first === 0x00 && second === 20) return "p2wpkh";
  if (script.length === 34 && first === 0x00 && second === 32) return "p2wsh";
  if (script.length === 34 && first === 0x51 && second === 32) return "p2tr";
  if (script.length === 25 && first === 0x76 && second === 0xa9 && script[2] === 20) {
    return script[23] === 0x88 && script[24] === 0xac ? "p2pkh" : undefined;
  }
  if (script.length === 23 && first === 0xa9 && second === 20 && script[22] === 0x87) return "p2sh";
  return undefined;
}

function decode(address: string, network: NetworkName): Uint8Array | undefined {
  try {
    const script = addressCodec.toOutputScript(address, networkParameters(network));
    return scriptType(script) === undefined ? undefined : script;
  } catch {
    return undefined;
  }
}

/** The script of an address of this network; undefined when it is none. Total. */
export function addressScript(address: string, network: NetworkName): Uint8Array | undefined {
  return decode(address, network);
}

/** Like `addressScript`; throws `InvalidInput` "address-other-network" or "address-invalid". */
export function requireAddressScript(address: string, network: NetworkName): Uint8Array {
  const script = decode(address, network);
  if (script !== undefined) return script;
  const elsewhere = NETWORK_NAMES.find((name) => name !== network && decode(address, name) !== undefined);
  if (elsewhere !== undefined) {
    const facts = { address, network, elsewhere };
    throw new InvalidInput("address-other-network", `the address is of ${elsewhere}, not ${network}`, facts);
  }
  throw new InvalidInput("address-invalid", "not an address of a supported type", { address });
}

/** The address of an output script; undefined when it has none. */
export function scriptAddress(script: Uint8Array, network: NetworkName): string | undefined {
  if (scriptType(script) === undefined) return undefined;
  try {
    return addressCodec.fromOutputScript(script, networkParameters(network));
  } catch {
    return undefined;
  }
}
