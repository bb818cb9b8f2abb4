/** What the devnet chain uses of bitcore-lib 11.5.1, which ships no types of its own. */
declare module "bitcore-lib" {
  interface Script {
    readonly chunks: readonly { readonly opcodenum: number; readonly buf?: Buffer }[];
  }

  interface Output {
    readonly script: Script | null;
  }

  interface Input {
    readonly script: Script;
    readonly witnesses?: readonly Buffer[];
    /** The output being spent; the Taproot signature hash commits to all of them. */
    output?: Output;
  }

  interface Transaction {
    readonly inputs: readonly Input[];
  }

  interface Signature {
    toBuffer(): Buffer;
  }

  interface Interpreter {
    /** Name of the failed rule, empty when the interpreter gives none. */
    errstr: string;
    checkSignatureEncoding(signature: Buffer): boolean;
    verify(
      scriptSig: Script,
      scriptPubKey: Script,
      transaction: Transaction,
      inputIndex: number,
      flags: number,
      witness: readonly Buffer[],
      valueSat: number,
    ): boolean;
  }

  interface InterpreterClass {
    (): Interpreter;
    readonly SCRIPT_VERIFY_P2SH: number;
    readonly SCRIPT_VERIFY_STRICTENC: number;
    readonly SCRIPT_VERIFY_DERSIG: number;
    readonly SCRIPT_VERIFY_LOW_S: number;
    readonly SCRIPT_VERIFY_NULLDUMMY: number;
    readonly SCRIPT_VERIFY_MINIMALDATA: number;
    readonly SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_NOPS: number;
    readonly SCRIPT_VERIFY_CHECKLOCKTIMEVERIFY: number;
    readonly SCRIPT_VERIFY_CHECKSEQUENCEVERIFY: number;
    readonly SCRIPT_VERIFY_WITNESS: number;
    readonly SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM: number;
    readonly SCRIPT_VERIFY_MINIMALIF: number;
    readonly SCRIPT_VERIFY_NULLFAIL: number;
    readonly SCRIPT_VERIFY_WITNESS_PUBKEYTYPE: number;
    readonly SCRIPT_VERIFY_CONST_SCRIPTCODE: number;
    readonly SCRIPT_VERIFY_TAPROOT: number;
    readonly SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_TAPROOT_VERSION: number;
    readonly SCRIPT_VERIFY_DISCOURAGE_OP_SUCCESS: number;
    readonly SCRIPT_VERIFY_DISCOURAGE_UPGRADABLE_PUBKEYTYPE: number;
    computeTaprootMerkleRoot(control: Buffer, tapleafHash: Buffer): Buffer;
    verifyTaprootCommitment(control: Buffer, program: Buffer, tapleafHash: Buffer): boolean;
  }

  interface SchnorrClass {
    verify(publicKey: Buffer, message: Buffer, signature: Buffer | Signature): boolean;
  }

  interface TransactionClass {
    new (raw: Buffer): Transaction;
    Output: new (output: { readonly satoshis: number; readonly script: Buffer }) => Output;
  }

  interface ScriptClass {
    new (raw: Buffer): Script;
    Interpreter: InterpreterClass;
  }

  const bitcore: {
    readonly Script: ScriptClass;
    readonly Transaction: TransactionClass;
    readonly crypto: { readonly Schnorr: SchnorrClass };
  };
  export default bitcore;
}
