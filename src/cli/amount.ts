import { InvalidInput } from "../crypto/fault.js";

const SAT_PER_BTC = 100_000_000n;
const MONEY_MAX_SAT = 2_100_000_000_000_000n;

/**
 * A bitcoin amount written as a decimal, exactly: at most 8 digits after the point, no sign, exponent or separator.
 *
 * @throws InvalidInput "amount-invalid"
 */
export function satFromBtc(text: string): bigint {
  const [, whole = "", fraction = ""] = /^(\d{1,8})(?:\.(\d{1,8}))?$/.exec(text) ?? [];
  if (whole === "") throw invalid("an amount in BTC looks like 0.015: digits, and at most 8 of them after the point");
  return bounded(BigInt(whole) * SAT_PER_BTC + BigInt(fraction.padEnd(8, "0")));
}

/** A whole number of satoshi. @throws InvalidInput "amount-invalid" */
export function satFromText(text: string): bigint {
  if (!/^\d{1,16}$/.test(text)) throw invalid("an amount in satoshi is a whole number without separators");
  return bounded(BigInt(text));
}

/** A fee rate in sat/vB with at most 3 digits after the point, as satoshi per 1000 virtual bytes. */
export function feeRateSatPerKvb(text: string): bigint {
  const [, whole = "", fraction = ""] = /^(\d{1,6})(?:\.(\d{1,3}))?$/.exec(text) ?? [];
  const rate = BigInt(whole === "" ? 0 : whole) * 1000n + BigInt(fraction.padEnd(3, "0"));
  if (rate === 0n) throw invalid("a fee rate is in sat/vB and looks like 12 or 1.5");
  return rate;
}

function bounded(amountSat: bigint): bigint {
  if (amountSat === 0n || amountSat > MONEY_MAX_SAT) throw invalid("an amount is 1 satoshi to 21 million BTC");
  return amountSat;
}

function invalid(message: string): InvalidInput {
  return new InvalidInput("amount-invalid", message);
}

/** For example "0.00015000 BTC". */
export function btcText(amountSat: bigint): string {
  const fraction = (amountSat % SAT_PER_BTC).toString().padStart(8, "0");
  return `${amountSat / SAT_PER_BTC}.${fraction} BTC`;
}
