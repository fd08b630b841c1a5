// SHA-256 and HMAC-SHA-256 of a key by libcrypto's low-level functions, which neither allocate nor fetch.
// Called per request by the adapter and by keyloader for each key; self_test() once at start.
// Never keeps a key or a pepper: what is left of them on the stack is wiped.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "apikey/digest.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>

namespace apikey {
namespace {

constexpr std::size_t kBlockSize = SHA256_CBLOCK;
constexpr std::uint8_t kInnerPad = 0x36;
constexpr std::uint8_t kOuterPad = 0x5c;
constexpr std::string_view kPlainName = "sha256";
constexpr std::string_view kPepperPrefix = "hmac-sha256:";
// What the self-test tries: around the ends of one block, of its padding, and of the longest key.
constexpr std::size_t kTestLengths[] = {0, 8, 46, 55, 56, 63, 64, 65, 119, 120, 128, 256};
constexpr std::size_t kTestPepperSizes[] = {16, 32, 63, 64, 65, 1024};

void save(const SHA256_CTX& context, std::span<std::uint8_t> state) noexcept {
  static_assert(sizeof(SHA256_CTX) == 112, "DigestMethod keeps whole contexts");
  std::memcpy(state.data(), &context, sizeof context);
}

SHA256_CTX restore(std::span<const std::uint8_t> state) noexcept {
  SHA256_CTX context;
  std::memcpy(&context, state.data(), sizeof context);
  return context;
}

// The state after one block of `key` combined with `pad`, which is where HMAC may be interrupted for good.
void save_padded(std::span<const std::uint8_t, kBlockSize> key, std::uint8_t pad,
                 std::span<std::uint8_t> state) noexcept {
  std::array<std::uint8_t, kBlockSize> block;
  for (std::size_t i = 0; i < kBlockSize; ++i) {
    block[i] = static_cast<std::uint8_t>(key[i] ^ pad);
  }
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, block.data(), block.size());
  save(context, state);
  OPENSSL_cleanse(&context, sizeof context);
  wipe(block);
}

bool equals_evp(const DigestMethod& method, std::span<const std::uint8_t> pepper, std::string_view key) noexcept {
  Digest expected;
  unsigned length = 0;
  if (pepper.empty()) {
    if (EVP_Digest(key.data(), key.size(), expected.bytes.data(), &length, EVP_sha256(), nullptr) != 1) {
      return false;
    }
  } else {
    std::array<unsigned char, kMaxPepperLength + 1> text{};
    std::copy(key.begin(), key.end(), text.begin());
    if (HMAC(EVP_sha256(), pepper.data(), static_cast<int>(pepper.size()), text.data(), key.size(),
             expected.bytes.data(), &length) == nullptr) {
      return false;
    }
  }
  return length == expected.bytes.size() && method(key) == expected;
}

}  // namespace

void wipe(std::span<char> memory) noexcept { OPENSSL_cleanse(memory.data(), memory.size()); }

void wipe(std::span<std::uint8_t> memory) noexcept { OPENSSL_cleanse(memory.data(), memory.size()); }

bool is_valid_pepper_id(std::string_view id) noexcept {
  if (id.empty() || id.size() > kMaxPepperIdLength) {
    return false;
  }
  return std::all_of(id.begin(), id.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; });
}

DigestMethod::DigestMethod() noexcept {
  SHA256_CTX context;
  SHA256_Init(&context);
  save(context, inner_);
}

Status DigestMethod::with_pepper(std::string_view id, std::span<const std::uint8_t> pepper,
                                 DigestMethod& method) noexcept {
  if (pepper.size() < kMinPepperLength || pepper.size() > kMaxPepperLength) {
    return {StatusCode::bad_value, "the pepper has {0} bytes; it must have 16 to 1024", pepper.size()};
  }
  std::array<std::uint8_t, kBlockSize> key{};
  if (pepper.size() > kBlockSize) {
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, pepper.data(), pepper.size());
    SHA256_Final(key.data(), &context);
    OPENSSL_cleanse(&context, sizeof context);
  } else {
    std::copy(pepper.begin(), pepper.end(), key.begin());
  }
  save_padded(key, kInnerPad, method.inner_);
  save_padded(key, kOuterPad, method.outer_);
  wipe(key);
  std::copy(id.begin(), id.end(), method.id_.begin());
  method.id_length_ = static_cast<std::uint8_t>(id.size());
  return {};
}

Digest DigestMethod::operator()(std::string_view key) const noexcept {
  Digest digest;
  SHA256_CTX context = restore(inner_);
  SHA256_Update(&context, key.data(), key.size());
  SHA256_Final(digest.bytes.data(), &context);
  if (id_length_ > 0) {
    context = restore(outer_);
    SHA256_Update(&context, digest.bytes.data(), digest.bytes.size());
    SHA256_Final(digest.bytes.data(), &context);
  }
  OPENSSL_cleanse(&context, sizeof context);
  return digest;
}

std::string_view DigestMethod::pepper_id() const noexcept { return {id_.data(), id_length_}; }

bool DigestMethod::is_named(std::string_view name) const noexcept {
  if (id_length_ == 0) {
    return name == kPlainName;
  }
  if (!name.starts_with(kPepperPrefix)) {
    return false;
  }
  name.remove_prefix(kPepperPrefix.size());
  return name == pepper_id();
}

Status DigestMethod::self_test() noexcept {
  std::array<std::uint8_t, kMaxPepperLength> pepper;
  std::array<char, kMaxPepperLength> text;
  for (std::size_t i = 0; i < pepper.size(); ++i) {
    pepper[i] = static_cast<std::uint8_t>(i * 7 + 1);
    text[i] = static_cast<char>('!' + i % 90);
  }
  for (const std::size_t length : kTestLengths) {
    const std::string_view key(text.data(), length);
    if (!equals_evp(DigestMethod(), {}, key)) {
      return {StatusCode::failed, "libcrypto's SHA256_* and EVP disagree on a text of {0} bytes", length};
    }
    for (const std::size_t size : kTestPepperSizes) {
      DigestMethod method;
      const auto part = std::span(pepper).first(size);
      const Status status = with_pepper("self-test", part, method);
      if (!status.ok()) {
        return status;
      }
      if (!equals_evp(method, part, key)) {
        return {StatusCode::failed, "SHA256_* and libcrypto's HMAC disagree: pepper of {0} bytes, text of {1}", size,
                length};
      }
    }
  }
  return {};
}

}  // namespace apikey
