/**
 * Input scripts, judged by an interpreter that shares no code with the wallet: bitcore-lib's translation of Bitcoin
 * Core's interpreter. It is no consensus node: it is a second opinion on the spends that a wallet makes.
 *
 * Two of its functions are replaced, both for the same flaw in 11.5.1: a point's x coordinate is serialised with
 * elliptic's BN, which ignores the wanted size of 32 bytes and drops leading zero bytes. About 1 key in 256 has one, and
 * for such a key the BIP 340 challenge and the BIP 341 tweak are computed over 31 bytes.
 *   - Schnorr.verify                        -> noble-curves, whose BIP 340 check is complete
 *   - Interpreter.verifyTaprootCommitment   -> BIP 341 "Script validation rules" with noble-curves' points
 *
 * Known and left: its Taproot hash writes the length of a spent scriptPubKey in one byte, which is wrong from 253 bytes
 * on. The longest output that can exist on this chain and be spent has a script of 67 bytes (policy.ts).
 */
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import bitcore from "bitcore-lib";

/** An output that a transaction spends. */
export interface SpentOutput {
  readonly valueSat: bigint;
  readonly scriptPubKey: Uint8Array;
}

/** Which input failed and the rule that it broke, in Bitcoin Core's words where it has some. */
export interface ScriptFailure {
  readonly inputIndex: number;
  readonly rule: string;
}

const { Interpreter } = bitcore.Script;

/** bitcore's own functions, kept so that a test can show what they get wrong. */
export const flawed = {
  schnorrVerify: bitcore.crypto.Schnorr.verify.bind(bitcore.crypto.Schnorr),
  verifyTaprootCommitment: Interpreter.verifyTaprootCommitment.bind(Interpreter),
};

bitcore.crypto.Schnorr.verify = (publicKey, message, signature) => {
  const bytes = Buffer.isBuffer(signature) ? signature : signature.toBuffer().subarray(0, 64);
  try {
    return schnorr.verify(bytes, message, publicKey);
  } catch {
    return false;
  }
};

Interpreter.verifyTaprootCommitment = (control, program, tapleafHash) => {
  try {
    const internalKey = control.subarray(1, 33);
    const merkleRoot = Interpreter.computeTaprootMerkleRoot(control, tapleafHash);
    const tweak = schnorr.utils.taggedHash("TapTweak", internalKey, merkleRoot);
    const t = secp256k1.Point.Fn.fromBytes(tweak); // refuses t ≥ n
    const P = schnorr.utils.lift_x(BigInt(`0x${internalKey.toString("hex")}`));
    const Q = P.add(secp256k1.Point.BASE.multiply(t)).toAffine(); // Q = P + tG
    const parity = (control[0] ?? 0) & 1;
    return Q.x === BigInt(`0x${program.toString("hex")}`) && Number(Q.y & 1n) === parity;
  } catch {
    return false;
  }
};

/**
 * Bitcoin Core's standard script flags, without CLEANSTACK: bitcore-lib tests that rule on the stack before the
 * scriptPubKey ran, which refuses every witness spend. Witness programs have the rule built in; for P2PKH see policy.ts.
 */
const STANDARD_FLAGS =
  Interpreter.SCRIPT_VERIFY_P2SH |
  Interpreter.SCRIPT_VERIFY_STRICTENC |
  Interpreter.SCRIPT_VERIFY_DERSIG |
  Interpreter.SCRIPT_VERIFY_LOW_S |
  Interpreter.SCRIPT_VERIFY_NULLDUMMY |
  Interpreter.SCRIPT_VERIFY_MINIMALDATA |
  Interpreter.SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_NOPS |
  Interpreter.SCRIPT_VERIFY_CHECKLOCKTIMEVERIFY |
  Interpreter.SCRIPT_VERIFY_CHECKSEQUENCEVERIFY |
  Interpreter.SCRIPT_VERIFY_WITNESS |
  Interpreter.SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM |
  Interpreter.SCRIPT_VERIFY_MINIMALIF |
  Interpreter.SCRIPT_VERIFY_NULLFAIL |
  Interpreter.SCRIPT_VERIFY_WITNESS_PUBKEYTYPE |
  Interpreter.SCRIPT_VERIFY_CONST_SCRIPTCODE |
  Interpreter.SCRIPT_VERIFY_TAPROOT |
  Interpreter.SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_TAPROOT_VERSION |
  Interpreter.SCRIPT_VERIFY_DISCOURAGE_OP_SUCCESS |
  Interpreter.SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_PUBKEYTYPE;

/** Bitcoin Core's sentence for a rule; a rule without an entry is reported by its name. */
const SENTENCES: Readonly<Record<string, string>> = {
  "": "Invalid Schnorr signature",
  SCRIPT_ERR_SCHNORR_SIG: "Invalid Schnorr signature",
  SCRIPT_ERR_SCHNORR_SIG_SIZE: "Invalid Schnorr signature size",
  SCRIPT_ERR_SCHNORR_SIG_HASHTYPE: "Invalid Schnorr signature hash type",
  SCRIPT_ERR_SIG_NULLFAIL: "Signature must be zero for failed CHECK(MULTI)SIG operation",
  SCRIPT_ERR_NULLFAIL: "Signature must be zero for failed CHECK(MULTI)SIG operation",
  SCRIPT_ERR_SIG_HASHTYPE: "Signature hash type missing or not understood",
  SCRIPT_ERR_SIG_DER_INVALID_FORMAT: "Non-canonical DER signature",
  SCRIPT_ERR_SIG_DER_HIGH_S: "Non-canonical signature: S value is unnecessarily high",
  SCRIPT_ERR_PUBKEYTYPE: "Public key is neither compressed or uncompressed",
  SCRIPT_ERR_WITNESS_PUBKEYTYPE: "Using non-compressed keys in segwit",
  SCRIPT_ERR_EQUALVERIFY: "Script failed an OP_EQUALVERIFY operation",
  SCRIPT_ERR_CHECKSIGVERIFY: "Script failed an OP_CHECKSIGVERIFY operation",
  SCRIPT_ERR_CHECKMULTISIGVERIFY: "Script failed an OP_CHECKMULTISIGVERIFY operation",
  SCRIPT_ERR_EVAL_FALSE: "Script evaluated without error but finished with a false/empty top stack element",
  SCRIPT_ERR_EVAL_FALSE_IN_STACK: "Script evaluated without error but finished with a false/empty top stack element",
  SCRIPT_ERR_EVAL_FALSE_NO_RESULT: "Script evaluated without error but finished with a false/empty top stack element",
  SCRIPT_ERR_WITNESS_PROGRAM_MISMATCH: "Witness program hash mismatch",
  SCRIPT_ERR_WITNESS_PROGRAM_WITNESS_EMPTY: "Witness program was passed an empty witness",
  SCRIPT_ERR_WITNESS_MALLEATED: "Witness requires empty scriptSig",
  SCRIPT_ERR_WITNESS_UNEXPECTED: "Witness provided for non-witness script",
  SCRIPT_ERR_TAPROOT_WRONG_CONTROL_SIZE: "Invalid Taproot control block size",
  SCRIPT_ERR_SIG_PUSHONLY: "Only push operators allowed in signatures",
  SCRIPT_ERR_INVALID_STACK_OPERATION: "Operation not valid with the current stack size",
  SCRIPT_ERR_UNSATISFIED_LOCKTIME: "Locktime requirement not satisfied",
  SCRIPT_ERR_NEGATIVE_LOCKTIME: "Negative locktime",
};

const isDefinedHashType = (hashType: number): boolean => {
  const base = hashType & ~0x80; // without ANYONECANPAY
  return base >= 1 && base <= 3;
};

function interpreter() {
  const machine = Interpreter();
  const encoding = machine.checkSignatureEncoding.bind(machine);
  // With LOW_S set, bitcore-lib skips STRICTENC's rule on the hash type; here the rule always holds.
  machine.checkSignatureEncoding = (signature) => {
    if (!encoding(signature)) return false;
    if (signature.length === 0 || isDefinedHashType(signature[signature.length - 1] ?? 0)) return true;
    machine.errstr = "SCRIPT_ERR_SIG_HASHTYPE";
    return false;
  };
  return machine;
}

/**
 * Runs the scripts of every input under the standard flags.
 *
 * @param raw - the whole transaction, with witnesses, already known to decode
 * @param spent - the outputs that its inputs spend, in the order of the inputs, each at most 2^53 - 1 satoshi
 * @returns the first failure, or undefined when every input is allowed to spend its output; never throws
 */
export function scriptFailure(raw: Uint8Array, spent: readonly SpentOutput[]): ScriptFailure | undefined {
  let inputIndex = 0;
  try {
    const transaction = new bitcore.Transaction(Buffer.from(raw));
    if (transaction.inputs.length !== spent.length) return { inputIndex, rule: "inputs and outputs do not pair up" };
    for (const [index, input] of transaction.inputs.entries()) {
      const output = spent[index];
      if (output === undefined) return { inputIndex: index, rule: "inputs and outputs do not pair up" };
      input.output = new bitcore.Transaction.Output({
        satoshis: Number(output.valueSat),
        script: Buffer.from(output.scriptPubKey),
      });
    }
    for (const [index, input] of transaction.inputs.entries()) {
      inputIndex = index;
      const scriptPubKey = input.output?.script;
      const valueSat = Number(spent[index]?.valueSat ?? 0n);
      if (scriptPubKey == null) return { inputIndex, rule: "scriptPubKey does not parse" };
      const machine = interpreter();
      const witness = input.witnesses ?? [];
      if (!machine.verify(input.script, scriptPubKey, transaction, index, STANDARD_FLAGS, witness, valueSat)) {
        return { inputIndex, rule: SENTENCES[machine.errstr] ?? machine.errstr };
      }
    }
    return undefined;
  } catch (cause) {
    // bitcore-lib throws on some malformed scripts and keys; a spend that it cannot judge is refused.
    return { inputIndex, rule: cause instanceof Error ? cause.message : "script does not parse" };
  }
}
