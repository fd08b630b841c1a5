// The seal page: bytes to fields and back. The hash itself is computed by verify.cpp and by the sealer.
// Must never read outside the file it is given.
#include "apikey/seal.hpp"

#include <algorithm>
#include <cstring>

#include "apikey/little_endian.hpp"

namespace apikey {
namespace {

// As load_le and store_le, from a pointer whose bounds have been checked.
template <typename T>
T read_le(const std::byte* at) noexcept {
  return load_le<T>({at, sizeof(T)}, 0);
}

template <typename T>
void write_le(std::byte* at, T value) noexcept {
  store_le<T>({at, sizeof(T)}, 0, value);
}

constexpr std::array<char, 8> kMagic = {'A', 'K', 'S', 'E', 'A', 'L', '0', '1'};
constexpr std::size_t kSignaturesAt = 128;
constexpr std::size_t kSignatureSize = 96;
constexpr std::size_t kMinPageSize = 4096;
constexpr std::size_t kMaxPageSize = 65536;

bool has_magic(const std::byte* page) noexcept { return std::memcmp(page, kMagic.data(), kMagic.size()) == 0; }

bool all_zero(std::span<const std::byte> bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// The last page of the file, by the page size it names itself; nullptr when there is no seal.
const std::byte* find_seal_page(std::span<const std::byte> file) noexcept {
  for (std::size_t size = kMinPageSize; size <= kMaxPageSize; size *= 2) {
    if (file.size() < size) break;
    const std::byte* page = file.data() + (file.size() - size);
    if (has_magic(page) && read_le<std::uint32_t>(page + 12) == size) return page;
  }
  return nullptr;
}

void decode_fields(const std::byte* page, Seal& seal) noexcept {
  seal.format = read_le<std::uint32_t>(page + 8);
  seal.page_size = read_le<std::uint32_t>(page + 12);
  seal.length = read_le<std::uint64_t>(page + 16);
  std::memcpy(seal.sha256.data(), page + 24, seal.sha256.size());
  seal.generation = read_le<std::uint64_t>(page + 56);
  std::memcpy(seal.base.data(), page + 64, seal.base.size());
  seal.signature_count = read_le<std::uint32_t>(page + 96);
}

}  // namespace

void encode_seal(const Seal& seal, std::span<std::byte> page) noexcept {
  std::memset(page.data(), 0, page.size());
  std::memcpy(page.data(), kMagic.data(), kMagic.size());
  write_le(page.data() + 8, seal.format);
  write_le(page.data() + 12, seal.page_size);
  write_le(page.data() + 16, seal.length);
  std::memcpy(page.data() + 24, seal.sha256.data(), seal.sha256.size());
  write_le(page.data() + 56, seal.generation);
  std::memcpy(page.data() + 64, seal.base.data(), seal.base.size());
  const std::size_t count = std::min<std::size_t>(seal.signature_count, kMaxSignatures);
  write_le(page.data() + 96, static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* at = page.data() + kSignaturesAt + i * kSignatureSize;
    std::memcpy(at, seal.signatures[i].key_id.data(), 32);
    std::memcpy(at + 32, seal.signatures[i].bytes.data(), 64);
  }
}

Status decode_seal(std::span<const std::byte> file, Seal& seal) noexcept {
  seal = Seal{};
  const std::byte* page = find_seal_page(file);
  if (page == nullptr) {
    return {StatusCode::damaged,
            "there is no seal at the end of the {0} bytes: not sealed, cut off, or written to since", file.size()};
  }
  decode_fields(page, seal);
  if (seal.format < kOldestFormat || seal.format > kFormatVersion) {
    static_assert(kOldestFormat == 1 && kFormatVersion == 2);
    return {StatusCode::unsupported, "the snapshot has format {0}; this build reads formats 1 and 2", seal.format};
  }
  if (seal.length != file.size()) {
    return {StatusCode::damaged, "the seal is for {0} bytes, the file has {1}", seal.length, file.size()};
  }
  if (seal.length % seal.page_size != 0 || seal.length < std::uint64_t{3} * seal.page_size) {
    return {StatusCode::damaged, "{0} bytes are no whole number of pages of {1} bytes", seal.length, seal.page_size};
  }
  if (seal.signature_count > kMaxSignatures) {
    return {StatusCode::damaged, "the seal names {0} signatures; at most {1} fit", seal.signature_count,
            kMaxSignatures};
  }
  const std::size_t used = kSignaturesAt + seal.signature_count * kSignatureSize;
  if (!all_zero({page + 100, kSignaturesAt - 100}) || !all_zero({page + used, seal.page_size - used})) {
    return {StatusCode::damaged, "bytes of the seal page that must be zero are not"};
  }
  for (std::size_t i = 0; i < seal.signature_count; ++i) {
    const std::byte* at = page + kSignaturesAt + i * kSignatureSize;
    std::memcpy(seal.signatures[i].key_id.data(), at, 32);
    std::memcpy(seal.signatures[i].bytes.data(), at + 32, 64);
    if (all_zero({at, 32}))
      return {StatusCode::damaged, "signature {0} of {1} names no key", i + 1, seal.signature_count};
  }
  return {};
}

}  // namespace apikey
