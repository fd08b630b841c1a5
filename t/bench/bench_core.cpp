// What the steps of a decision cost before it comes to limits (those are in bench_limits.cpp): digest, look-up, rows 1
// to 8. Built by `ninja bench_core`, run by people; never part of a test, since its numbers depend on the machine.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "apikey/authenticator.hpp"
#include "measure.hpp"
#include "snapshot_fixture.hpp"

namespace apikey {
namespace {

using bench::Counters;
using bench::measure;

constexpr std::size_t kKeys = 100'000;

void measure_digest(const Counters& counters) {
  std::string key = "ak_live_0123456789abcdefghijklmnopqrstuv012345";
  const auto vary = [&key](std::uint64_t i) { std::memcpy(key.data() + 8, &i, sizeof i); };
  const DigestMethod plain;
  measure(counters, "digest: SHA-256", [&](std::uint64_t i) {
    vary(i);
    return std::uint64_t{plain(key).bytes[0]};
  });
  DigestMethod peppered;
  const std::array<std::uint8_t, 32> pepper{1, 2, 3};
  if (DigestMethod::with_pepper("bench", pepper, peppered).ok()) {
    measure(counters, "digest: HMAC-SHA-256", [&](std::uint64_t i) {
      vary(i);
      return std::uint64_t{peppered(key).bytes[0]};
    });
  }
}

void measure_snapshot(const Counters& counters, const Snapshot& snapshot, const fixture::Keys& keys) {
  Record record;
  const auto some_key = [&keys](std::uint64_t i) -> const Digest& { return keys[i * 7919 % keys.size()].first; };
  measure(counters, "find: a key of 100,000",
          [&](std::uint64_t i) { return std::uint64_t{snapshot.find(some_key(i), record) == Snapshot::Find::found}; });
  measure(counters, "find: no key", [&](std::uint64_t i) {
    Digest other = some_key(i);
    other.bytes[31] ^= 1U;
    return std::uint64_t{snapshot.find(other, record) == Snapshot::Find::found};
  });

  constexpr std::array<std::uint8_t, 1> methods = {0};
  constexpr std::array<std::string_view, 2> environments = {"live", "test"};
  constexpr std::array<std::string_view, 1> scopes = {"orders:read"};
  const std::array<ScopeLine, 1> lines = {ScopeLine{~MethodSet{0}, scopes}};
  LocationPolicy policy;
  policy.environments = environments;
  policy.scope_lines = lines;
  RequestFacts facts;
  facts.address = make_address(std::array<std::uint8_t, 4>{10, 0, 0, 1});
  facts.method = kMethodGet;
  Credential credential;
  credential.found = Found::key;
  measure(counters, "decide: without limits", [&](std::uint64_t i) {
    credential.digests[0] = some_key(i);
    Recognition known;
    const Verdict verdict =
        decide(policy, credential, {&snapshot, methods}, facts, {{1'800'000'000}, {1}, {}}, known, nullptr);
    return static_cast<std::uint64_t>(verdict.outcome);
  });
}

int run() {
  const Counters counters;
  bench::say_what_is_counted(counters);
  measure_digest(counters);
  const fixture::TempDir dir;
  fixture::Keys keys;
  publish::MappedFile file;
  Snapshot snapshot;
  const Status opened = file.open(fixture::build(dir, kKeys, &keys));
  if (!opened.ok() || !snapshot.open(file.fd(), file.bytes(), Lookup::index).ok()) {
    (void)std::fprintf(stderr, "bench_core: the snapshot cannot be opened: %s\n", fixture::describe(opened).c_str());
    return 1;
  }
  measure_snapshot(counters, snapshot, keys);
  return 0;
}

}  // namespace
}  // namespace apikey

int main() { return apikey::run(); }
