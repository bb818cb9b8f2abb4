import { ElogProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { Point, Scalar } from "../../../src/crypto/curve.js";
import * as elog from "../../../src/crypto/proofs/elog.js";
import { describeProof } from "./suite.js";

const g = Point.base;

describeProof({
  name: "elog",
  schema: ElogProofSchema,
  profiled: false,
  instance: (_, random) => {
    const [y, lambda] = [Scalar.random(random), Scalar.random(random)];
    const X = g.times(Scalar.random(random));
    const h = g.times(Scalar.random(random));
    const statement = { L: g.times(lambda), M: g.times(y).plus(X.times(lambda)), X, Y: h.times(y), h };
    return { proving: statement, verifying: statement, judging: statement, witness: { y, lambda } };
  },
  prove: elog.prove,
  verify: elog.verify,
  encode: (_, proof) => elog.encode(proof),
  decode: (_, message) => elog.decode(message),
});
