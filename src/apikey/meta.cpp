// Database `meta` of a snapshot: from ASCII values to numbers, and what must be there.
// Called by the verifier and by the reader once per snapshot. Never takes a value it only half understands.
#include "apikey/meta.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

namespace apikey {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

Status damaged(const char* text) noexcept { return {StatusCode::damaged, text}; }

// Decimal as we write it: digits only, no sign, no leading zero.
bool parse_decimal(std::string_view text, std::uint64_t& number) noexcept {
  if (text.empty() || (text.front() == '0' && text.size() > 1)) {
    return false;
  }
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && stop == end;
}

bool parse_count(std::string_view text, std::uint64_t& number) noexcept {
  return parse_decimal(text, number) && number > 0;
}

bool parse_time(std::string_view text, UnixSec& time) noexcept {
  std::uint64_t seconds = 0;
  if (!parse_count(text, seconds) || seconds > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return false;
  }
  time.value = static_cast<std::int64_t>(seconds);
  return true;
}

bool is_printable(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

// Words with one space between two of them, none twice, at most as many as `words` has elements.
bool parse_words(std::string_view text, std::span<std::string_view> words, std::size_t& count) noexcept {
  count = 0;
  while (true) {
    const std::size_t length = std::min(text.find(' '), text.size());
    const std::string_view word(text.data(), length);
    const auto known = words.first(count);
    if (word.empty() || count == words.size() || !is_printable(word) ||
        std::find(known.begin(), known.end(), word) != known.end()) {
      return false;
    }
    words[count++] = word;
    if (length == text.size()) {
      return true;
    }
    text.remove_prefix(length + 1);
  }
}

bool parse_features(std::string_view text, Meta& meta) noexcept {
  meta.feature_count = 0;
  return text.empty() || parse_words(text, meta.features, meta.feature_count);
}

Status check_counters(const Meta& meta) noexcept {
  if (meta.has_added != meta.has_removed) {
    return damaged("meta: `added` and `removed` go together, one of them is missing");
  }
  if (meta.has_added && (meta.removed > meta.added || meta.added - meta.removed != meta.keys)) {
    return {StatusCode::damaged, "meta: `keys` is not `added` ({0}) less `removed` ({1})", meta.added, meta.removed};
  }
  return {};
}

Status set_format(Meta& meta, std::string_view value) noexcept {
  std::uint64_t format = 0;
  if (!parse_count(value, format)) {
    return damaged("meta: `format` is not a number");
  }
  if (format < kOldestFormat || format > kFormatVersion) {
    static_assert(kOldestFormat == 1 && kFormatVersion == 2);
    return {StatusCode::unsupported, "the snapshot has format {0}; this build reads formats 1 and 2", format};
  }
  meta.format = static_cast<std::uint32_t>(format);
  return {};
}

// The names of format 2. LMDB brings them before and after `format`, so what is wrong is only kept.
// RETURNS: false for another name.
bool set_meta_of_format_2(Meta& meta, std::string_view name, std::string_view value) noexcept {
  const char* wrong = nullptr;
  if (name == "hash_seed") {
    const bool is_seed = from_hex(value, meta.hash_seed) && meta.hash_seed != HashSeed{};
    wrong = is_seed ? nullptr : "meta: `hash_seed` is not 32 hex digits, or zero";
  } else if (name == "name") {
    meta.name = value;
    wrong = is_store_name(value) ? nullptr : "meta: `name` is not 1 to 32 of a-z 0-9 _ -";
  } else if (name == "audit_seq") {
    wrong = parse_count(value, meta.audit_seq) ? nullptr : "meta: `audit_seq` is not a number from 1 up";
  } else if (name == "audit_head") {
    meta.has_audit_head = from_hex(value, meta.audit_head);
    wrong = meta.has_audit_head ? nullptr : "meta: `audit_head` is not 64 hex digits";
  } else {
    return false;
  }
  meta.wrong_in_format_2 = wrong != nullptr ? wrong : meta.wrong_in_format_2;
  return true;
}

Status check_format_2(Meta& meta) noexcept {
  if (meta.format < 2) {
    meta.wrong_in_format_2 = nullptr;
    meta.hash_seed = {};
    meta.name = {};
    meta.audit_seq = 0;
    meta.has_audit_head = false;
    meta.audit_head = {};
    return {};
  }
  if (meta.wrong_in_format_2 != nullptr) {
    return damaged(meta.wrong_in_format_2);
  }
  if ((meta.audit_seq != 0) != meta.has_audit_head) {
    return damaged("meta: `audit_seq` and `audit_head` go together, one of them is missing");
  }
  return {};
}

}  // namespace

Status set_meta(Meta& meta, std::string_view name, std::string_view value) noexcept {
  if (name == "format") {
    return set_format(meta, value);
  }
  if (name == "registry_id") {
    return from_hex(value, meta.registry_id) ? Status{} : damaged("meta: `registry_id` is not 32 hex digits");
  }
  if (name == "generation") {
    return parse_count(value, meta.generation) ? Status{} : damaged("meta: `generation` is not a number from 1 up");
  }
  if (name == "created") {
    return parse_time(value, meta.created) ? Status{} : damaged("meta: `created` is not a number of seconds");
  }
  if (name == "builder") {
    meta.builder = value;
    return is_printable(value) ? Status{} : damaged("meta: `builder` is not ASCII text");
  }
  if (name == "keys") {
    meta.has_keys = parse_decimal(value, meta.keys);
    return meta.has_keys ? Status{} : damaged("meta: `keys` is not a number");
  }
  if (name == "digests") {
    return parse_words(value, meta.digests, meta.digest_count)
               ? Status{}
               : damaged("meta: `digests` is not a list of 1 to 4 method names");
  }
  if (name == "allow_shrink") {
    meta.allow_shrink = value == "1";
    return meta.allow_shrink ? Status{} : damaged("meta: `allow_shrink` is neither absent nor 1");
  }
  if (name == "rolled_back_to") {
    return parse_count(value, meta.rolled_back_to) ? Status{} : damaged("meta: `rolled_back_to` is not a generation");
  }
  if (name == "added") {
    meta.has_added = parse_decimal(value, meta.added);
    return meta.has_added ? Status{} : damaged("meta: `added` is not a number");
  }
  if (name == "removed") {
    meta.has_removed = parse_decimal(value, meta.removed);
    return meta.has_removed ? Status{} : damaged("meta: `removed` is not a number");
  }
  if (name == "requires") {
    return parse_features(value, meta) ? Status{} : damaged("meta: `requires` is not a list of at most 16 names");
  }
  if (name == "base") {
    meta.has_base = from_hex(value, meta.base);
    return meta.has_base ? Status{} : damaged("meta: `base` is not 64 hex digits");
  }
  static_cast<void>(set_meta_of_format_2(meta, name, value));
  return {};
}

bool is_store_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

Status check_meta(Meta& meta) noexcept {
  if (meta.format == 0) {
    return damaged("meta: `format` is missing");
  }
  if (meta.registry_id == RegistryId{}) {
    return damaged("meta: `registry_id` is missing or zero");
  }
  if (meta.generation == 0) {
    return damaged("meta: `generation` is missing");
  }
  if (meta.created.value == 0) {
    return damaged("meta: `created` is missing");
  }
  if (meta.builder.empty()) {
    return damaged("meta: `builder` is missing or empty");
  }
  if (!meta.has_keys) {
    return damaged("meta: `keys` is missing");
  }
  if (meta.digest_count == 0) {
    return damaged("meta: `digests` is missing");
  }
  if (meta.rolled_back_to >= meta.generation) {
    return {StatusCode::damaged, "meta: generation {0} cannot be a rollback to generation {1}", meta.generation,
            meta.rolled_back_to};
  }
  const Status status = check_format_2(meta);
  return status.ok() ? check_counters(meta) : status;
}

void to_hex(std::span<const std::uint8_t> bytes, std::span<char> out) noexcept {
  std::size_t at = 0;
  for (const std::uint8_t byte : bytes) {
    out[at++] = kHexDigits[byte >> 4];
    out[at++] = kHexDigits[byte & 0x0f];
  }
}

bool from_hex(std::string_view text, std::span<std::uint8_t> bytes) noexcept {
  if (text.size() != 2 * bytes.size()) {
    return false;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t high = kHexDigits.find(text[2 * i]);
    const std::size_t low = kHexDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return false;
    }
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace apikey
