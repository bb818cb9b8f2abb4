import { create, createFileRegistry, type DescMethodServerStreaming } from "@bufbuild/protobuf";
import {
  type BytesValueSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_wrappers,
  type UInt32ValueSchema,
} from "@bufbuild/protobuf/wkt";

/** peer.proto has no server-streaming method, so the tests bring one: Produce(count) returns (stream bytes). */
const file = create(FileDescriptorProtoSchema, {
  name: "mpcwallet/test/v1/stream.proto",
  package: "mpcwallet.test.v1",
  syntax: "proto3",
  dependency: ["google/protobuf/wrappers.proto"],
  service: [
    {
      name: "StreamService",
      method: [
        {
          name: "Produce",
          inputType: ".google.protobuf.UInt32Value",
          outputType: ".google.protobuf.BytesValue",
          serverStreaming: true,
        },
      ],
    },
  ],
});

const service = createFileRegistry(file, (path) =>
  path === "google/protobuf/wrappers.proto" ? file_google_protobuf_wrappers : undefined,
).getService("mpcwallet.test.v1.StreamService");

function produceMethod() {
  const method = service?.methods.find(({ name }) => name === "Produce");
  if (method === undefined) throw new Error("the test service does not build");
  return method as DescMethodServerStreaming<typeof UInt32ValueSchema, typeof BytesValueSchema>;
}

/** Server-streaming: a count in, that many byte strings out. */
export const PRODUCE = produceMethod();
