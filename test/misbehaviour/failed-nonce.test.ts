import { otherScalar } from "../protocols/cggmp24/dishonesty.js";
import { describeFailure } from "./failing-presign.js";

describeFailure("failed-nonce", (share) => otherScalar(share.productShare));
