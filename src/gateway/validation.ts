import { create } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Violation } from "@bufbuild/protovalidate";
import { Code, type ConnectError, type Interceptor } from "@connectrpc/connect";
import { BadRequestSchema } from "../../gen/google/rpc/error_details_pb.js";
import { refusal } from "./error-mapping.js";

/** Violations that an answer lists; a message can break a rule once for each of its elements. */
const VIOLATIONS_MAX = 16;

/** Checks each request message against the `buf.validate` rules of its proto before a handler sees it. */
export function validation(): Interceptor {
  const validator = createValidator();
  return (next) => async (request) => {
    if (!request.stream) {
      const result = validator.validate(request.method.input, request.message);
      if (result.kind === "invalid") throw refused(result.violations);
      if (result.kind === "error") throw result.error;
    }
    return next(request);
  };
}

function refused(violations: readonly Violation[]): ConnectError {
  const shown = violations.slice(0, VIOLATIONS_MAX).map((violation) => ({
    field: pathToString(violation.field),
    description: violation.message,
    reason: violation.ruleId,
  }));
  const error = refusal({
    code: Code.InvalidArgument,
    reason: "request-invalid",
    message: shown.map(({ field, description }) => `${field}: ${description}`).join("; "),
  });
  error.details.push({ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations: shown }) });
  return error;
}
