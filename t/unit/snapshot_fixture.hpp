// Snapshots for tests: a temporary folder, a snapshot of n made-up keys in it, its bytes, and the means to break them.
// Included by the tests of index, seal, pages, verify, snapshot, authenticator; a test that includes it is linked with
// the publishing library. Include before cmocka_cpp.hpp.
#pragma once

#include <unistd.h>

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "apikey/digest.hpp"
#include "apikey/record.hpp"
#include "apikey/seal.hpp"
#include "apikey/verify.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_writer.hpp"

namespace fixture {

using Bytes = std::vector<std::byte>;

class TempDir {
 public:
  TempDir() {
    std::string name = std::filesystem::temp_directory_path() / "apikey-test.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline apikey::Digest digest_of(const std::string& key) { return apikey::DigestMethod()(key); }

inline std::string describe(const apikey::Status& status) {
  std::array<char, 300> text;
  return std::string(apikey::describe(status, text));
}

inline apikey::publish::MetaValues meta_of(std::uint64_t generation) {
  apikey::publish::MetaValues meta;
  meta.registry_id.fill(0x5a);
  meta.generation = generation;
  meta.created = {1'700'000'000};
  meta.builder = "test 1";
  return meta;
}

using Keys = std::vector<std::pair<apikey::Digest, apikey::Record>>;  // ascending

// Keys "key 0", "key 1" …, every third with bindings, every fifth with own limits, several scope sets and owners.
inline Keys fill(apikey::publish::SnapshotWriter& writer, std::size_t count) {
  using apikey::publish::Limit;
  Keys keys;
  for (std::size_t i = 0; i < count; ++i) {
    apikey::Record record;
    record.env = writer.string(i % 2 == 0 ? "live" : "test");
    apikey::publish::Owner owner{.name = "owner " + std::to_string(i % 7)};
    owner.id.fill(static_cast<std::byte>(i % 7 + 1));
    record.owner = writer.owner(owner);
    record.plan =
        i % 4 == 0
            ? 0
            : writer.plan("gold", {Limit{.name = "default", .amount = 10, .period_ns = 1'000'000'000, .burst = 20}});
    record.scopes = writer.scope_set({"orders:read", i % 3 == 0 ? "users:*" : "orders:write"});
    record.name = writer.string("name " + std::to_string(i));
    if (i % 3 == 0) record.bindings = writer.string(std::string("\x01\x05\x08\x0a\x00\x00\x00", 7));
    if (i % 5 == 0)
      record.limits = writer.limits({Limit{.name = "own", .amount = 1, .period_ns = 1'000'000'000, .burst = 1}});
    record.id = apikey::make_key_id(1'700'000'000'000 + i, std::array<std::uint8_t, 7>{1, 2, 3, 4, 5, 6, 7});
    record.family = record.id;
    keys.emplace_back(digest_of("key " + std::to_string(i)), record);
  }
  std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return keys;
}

// RETURNS: the path of the finished snapshot; empty, with the sentence on stderr, when that failed.
inline std::filesystem::path build(const TempDir& dir, std::size_t count, Keys* written = nullptr,
                                   std::uint64_t generation = 1) {
  apikey::publish::SnapshotWriter writer;
  apikey::publish::FinishedSnapshot finished;
  apikey::Status status = writer.open(dir.path());
  Keys keys = fill(writer, count);
  for (const auto& [digest, record] : keys) {
    if (status.ok()) status = writer.key(digest, record);
  }
  if (status.ok()) status = writer.finish(meta_of(generation), finished);
  if (!status.ok()) std::fprintf(stderr, "no snapshot of %zu keys: %s\n", count, describe(status).c_str());
  if (written != nullptr) *written = std::move(keys);
  return finished.path;
}

inline Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline apikey::Status verify(std::span<const std::byte> bytes, apikey::Verified* verified = nullptr) {
  std::vector<std::uint64_t> scratch(apikey::verify_scratch_words(bytes.size()));
  apikey::Verified ignored;
  return apikey::verify_snapshot(bytes, scratch, {}, verified == nullptr ? ignored : *verified);
}

// Makes the seal true again after bytes before it were changed: what a hostile builder would do.
inline void reseal(Bytes& bytes, std::size_t page_size = 4096) {
  const std::size_t sealed = bytes.size() - page_size;
  SHA256(static_cast<const unsigned char*>(static_cast<const void*>(bytes.data())), sealed,
         static_cast<unsigned char*>(static_cast<void*>(bytes.data() + sealed + 24)));
}

// Deterministic, so that a failure can be repeated.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()(std::uint64_t below) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ % below;
  }

 private:
  std::uint64_t state_;
};

template <typename T>
T get(const Bytes& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <typename T>
void put(Bytes& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace fixture
