import { SchProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { Point, Scalar } from "../../../src/crypto/curve.js";
import * as sch from "../../../src/crypto/proofs/sch.js";
import { describeProof } from "./suite.js";

describeProof({
  name: "sch",
  schema: SchProofSchema,
  profiled: false,
  instance: (_, random) => {
    const x = Scalar.random(random);
    const { tau, A } = sch.commit(random);
    const statement = { X: Point.base.times(x), A };
    return { proving: statement, verifying: statement, judging: statement, witness: { x, tau } };
  },
  prove: sch.prove,
  verify: sch.verify,
  encode: (_, proof) => sch.encode(proof),
  decode: (_, message) => sch.decode(message),
});
