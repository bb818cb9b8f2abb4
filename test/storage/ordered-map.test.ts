import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { OrderedMap } from "../../src/storage/ordered-map.js";

describe("an ordered map", () => {
  it("finds a prefix and no neighbour, as a scan of everything does", () => {
    const map = new OrderedMap<number>();
    const keys = ["/a/1", "b", "/a", "/a/10", "/b/1", "/a/2", "/a0", "/", "~", "/a/\u{10ffff}", "/a/é"];
    for (const [at, key] of keys.entries()) map.set(key, at);
    map.set("/a", 99);
    assert.equal(map.size, keys.length);
    assert.equal(map.get("/a"), 99);
    for (const prefix of ["", "/", "/a", "/a/", "/a/1", "/a/\u{10ffff}", "/c", "~", "~~"]) {
      const wanted = keys.filter((key) => key.startsWith(prefix)).sort();
      assert.deepEqual(map.withPrefix(prefix), wanted, prefix);
    }
    map.delete("/a/1");
    map.delete("/a/1");
    assert.deepEqual(map.withPrefix("/a/1"), ["/a/10"]);
    assert.equal(map.has("/a/1"), false);
  });

  it("costs what it finds, not what there is", () => {
    const map = new OrderedMap<number>();
    for (let n = 0; n < 50_000; n++) map.set(`/payments/${n}`, n);
    map.set("/open/1", 1);
    const time = (prefix: string) => {
      const startedMs = performance.now();
      for (let round = 0; round < 20; round++) map.withPrefix(prefix);
      return performance.now() - startedMs;
    };
    time("/payments/");
    const [few, all] = [time("/open/"), time("/payments/")];
    assert.ok(few * 20 < all, `${few} ms against ${all} ms`);
  });
});
