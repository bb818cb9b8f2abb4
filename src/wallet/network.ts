import { type Network, networks } from "bitcoinjs-lib";
import type { NetworkName } from "./wallet-application.js";

/** The Bitcoin networks. Signet uses testnet's address forms, as everywhere. */

const PARAMETERS: Readonly<Record<NetworkName, Network>> = {
  mainnet: networks.bitcoin,
  testnet: networks.testnet,
  signet: networks.testnet,
  regtest: networks.regtest,
};

export const NETWORK_NAMES: readonly NetworkName[] = ["mainnet", "testnet", "signet", "regtest"];

/** Address prefixes and version bytes in the form that bitcoinjs-lib takes. */
export function networkParameters(name: NetworkName): Network {
  return PARAMETERS[name];
}

export function isNetworkName(name: string): name is NetworkName {
  return Object.hasOwn(PARAMETERS, name);
}
