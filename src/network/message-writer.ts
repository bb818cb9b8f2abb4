import { create, type DescMessage, isMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * A message as a call carries it.
 *
 * @throws {ConnectError} ResourceExhausted when it is larger than a peer reads; Internal when it does not encode
 */
export function serialize<Desc extends DescMessage>(
  desc: Desc,
  message: MessageInitShape<Desc>,
  maxBytes: number,
): Uint8Array {
  const bytes = encoded(desc, message);
  if (bytes.length > maxBytes) {
    throw new ConnectError(`a message is ${bytes.length} bytes, the limit is ${maxBytes}`, Code.ResourceExhausted);
  }
  return bytes;
}

function encoded<Desc extends DescMessage>(desc: Desc, message: MessageInitShape<Desc>): Uint8Array {
  try {
    return toBinary(desc, isMessage(message, desc) ? message : create(desc, message));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConnectError(`a ${desc.typeName} does not encode: ${why}`, Code.Internal);
  }
}
