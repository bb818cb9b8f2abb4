import { create, type DescFile, type DescService, type Registry, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import {
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.js";

/** Requests on one reflection stream; tools send about one for each file. */
const REQUESTS_MAX = 1000;

/**
 * gRPC server reflection from the descriptors that the generated code carries. The messages of v1 and v1alpha have the
 * same fields, so one implementation serves both.
 */
export class Reflection {
  readonly #services: readonly DescService[];
  readonly #registry: Registry;
  readonly #files = new Map<string, DescFile>();

  /** @param registry every file that the services need */
  constructor(services: readonly DescService[], registry: Registry) {
    this.#services = services;
    this.#registry = registry;
    for (const service of services) this.#addFile(service.file);
  }

  #addFile(file: DescFile): void {
    if (this.#files.has(file.proto.name)) return;
    this.#files.set(file.proto.name, file);
    for (const dependency of file.dependencies) this.#addFile(dependency);
  }

  /** Answers each request of a stream in order. */
  async *answers(requests: AsyncIterable<ServerReflectionRequest>): AsyncGenerator<ServerReflectionResponse> {
    let count = 0;
    for await (const request of requests) {
      count += 1;
      if (count > REQUESTS_MAX) return;
      yield this.#answer(request);
    }
  }

  #answer(request: ServerReflectionRequest): ServerReflectionResponse {
    const { host: validHost, messageRequest: asked } = request;
    const messageResponse = (() => {
      switch (asked.case) {
        case "listServices":
          return services(this.#services);
        case "fileByFilename":
          return files(this.#files.get(asked.value), asked.value);
        case "fileContainingSymbol":
          return files(this.#fileOf(asked.value), asked.value);
        case "fileContainingExtension": {
          const { containingType, extensionNumber } = asked.value;
          return files(this.#extensionsOf(containingType).get(extensionNumber), `${containingType} ${extensionNumber}`);
        }
        case "allExtensionNumbersOfType":
          return {
            case: "allExtensionNumbersResponse" as const,
            value: { baseTypeName: asked.value, extensionNumber: [...this.#extensionsOf(asked.value).keys()] },
          };
        case undefined:
          return failed(Code.InvalidArgument, "the request asks for nothing");
      }
    })();
    return create(ServerReflectionResponseSchema, { validHost, originalRequest: request, messageResponse });
  }

  /** A symbol is a service, method, message, field, enum, enum value or extension; members are found by their owner. */
  #fileOf(symbol: string): DescFile | undefined {
    const owner = symbol.slice(0, Math.max(0, symbol.lastIndexOf(".")));
    const found = this.#registry.get(symbol) ?? this.#registry.get(owner);
    return found === undefined ? undefined : this.#files.get(found.file.proto.name);
  }

  #extensionsOf(typeName: string): ReadonlyMap<number, DescFile> {
    const extensions = [...this.#files.values()].flatMap((file) => file.extensions);
    const own = extensions.filter(({ extendee }) => extendee.typeName === typeName);
    return new Map(own.map((extension) => [extension.number, extension.file]));
  }
}

function services(all: readonly DescService[]) {
  return { case: "listServicesResponse" as const, value: { service: all.map(({ typeName }) => ({ name: typeName })) } };
}

/** The file and everything it imports, since most clients do not ask again for imports. */
function files(file: DescFile | undefined, wanted: string) {
  if (file === undefined) return failed(Code.NotFound, `not found: ${wanted.slice(0, 200)}`);
  const found = new Map<string, FileDescriptorProto>();
  const add = (one: DescFile): void => {
    if (found.has(one.proto.name)) return;
    found.set(one.proto.name, one.proto);
    one.dependencies.forEach(add);
  };
  add(file);
  const fileDescriptorProto = [...found.values()].map((proto) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
}

function failed(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse" as const, value: { errorCode, errorMessage } };
}
