import { otherPoint } from "../protocols/cggmp24/dishonesty.js";
import { describeFailure } from "./failing-presign.js";

describeFailure("failed-chi", (share) => otherPoint(share.key));
