// @peculiar/x509 2.x resolves its algorithms through tsyringe, which throws on import unless this polyfill is there
// first. Whoever needs the library imports it from here, so that the order cannot be forgotten.
import "reflect-metadata";

export * as x509 from "@peculiar/x509";
