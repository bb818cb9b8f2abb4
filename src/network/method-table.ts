import type { DescMethod, DescService } from "@bufbuild/protobuf";
import {
  type ConnectRouter,
  createMethodImplSpec,
  createServiceImplSpec,
  type MethodImplSpec,
} from "@connectrpc/connect";

/** Registers services on a router, as `routePeer(router, handlers)` does. */
export type RouterSetup = (router: ConnectRouter) => void;

/** The methods that peers may call, by the path of a call: what a generated router registers on it. */
export function methodTable(setup: RouterSetup): ReadonlyMap<string, MethodImplSpec> {
  const table = new Map<string, MethodImplSpec>();
  const add = (spec: MethodImplSpec): void => void table.set(methodPath(spec.method), spec);
  const router: ConnectRouter = {
    handlers: [],
    service(service: DescService, implementation) {
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) add(spec);
      return this;
    },
    rpc(method, implementation) {
      add(createMethodImplSpec(method, implementation) as MethodImplSpec);
      return this;
    },
  };
  setup(router);
  return table;
}

/** Path of a gRPC call. */
export function methodPath({ parent, name }: DescMethod): string {
  return `/${parent.typeName}/${name}`;
}
