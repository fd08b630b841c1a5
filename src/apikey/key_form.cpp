// The printed form of our keys: composing, checking, redacting. The form is described in key_form.hpp.
// Called by keyloader to issue keys and by the module before any look-up.
// Never keeps a key; never shows more of one than its prefix and environment.
#include "apikey/key_form.hpp"

#include <algorithm>

namespace apikey {
namespace {

constexpr std::string_view kBase62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kRedacted = "****";

constexpr std::array<std::uint32_t, 256> make_crc_table() noexcept {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320U : 0U);
    }
    table[i] = value;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

std::uint32_t crc32(std::string_view text) noexcept {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : text) {
    crc = kCrcTable[(crc ^ static_cast<std::uint8_t>(c)) & 0xff] ^ (crc >> 8);
  }
  return ~crc;
}

bool is_label_char(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_base62_char(char c) noexcept { return is_label_char(c) || (c >= 'A' && c <= 'Z'); }

bool is_label(std::string_view text, std::size_t min, std::size_t max) noexcept {
  return text.size() >= min && text.size() <= max && std::all_of(text.begin(), text.end(), is_label_char);
}

// Cuts what precedes the first '_' off `rest`, and the '_' with it. RETURNS: false when there is none.
bool cut_label(std::string_view& rest, std::string_view& label) noexcept {
  const std::size_t end = rest.find('_');
  if (end == std::string_view::npos) {
    return false;
  }
  label = {rest.data(), end};
  rest.remove_prefix(end + 1);
  return true;
}

bool split_key(std::string_view text, KeyParts& parts) noexcept {
  std::string_view rest = text;
  const bool has_labels = cut_label(rest, parts.prefix) && is_valid_prefix(parts.prefix) &&
                          cut_label(rest, parts.env) && is_valid_env(parts.env);
  if (!has_labels || rest.size() != kSecretLength + kCheckLength || !is_base62(rest)) {
    return false;
  }
  parts.secret = {rest.data(), kSecretLength};
  parts.check = {rest.data() + kSecretLength, kCheckLength};
  return true;
}

// Appends to what was written so far and says how long it is now.
std::size_t append(std::span<char> out, std::size_t at, std::string_view text) noexcept {
  std::copy(text.begin(), text.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
  return at + text.size();
}

}  // namespace

bool is_valid_prefix(std::string_view prefix) noexcept { return is_label(prefix, kMinPrefixLength, kMaxPrefixLength); }

bool is_valid_env(std::string_view env) noexcept { return is_label(env, 1, kMaxEnvLength); }

bool is_base62(std::string_view text) noexcept { return std::all_of(text.begin(), text.end(), is_base62_char); }

bool has_own_form(std::string_view text) noexcept {
  KeyParts parts;
  return split_key(text, parts);
}

bool parse_key(std::string_view text, KeyParts& parts) noexcept {
  KeyParts found;
  if (!split_key(text, found)) {
    return false;
  }
  const auto check = key_check({text.data(), text.size() - kCheckLength});
  if (!std::equal(check.begin(), check.end(), found.check.begin())) {
    return false;
  }
  parts = found;
  return true;
}

std::array<char, kCheckLength> key_check(std::string_view text) noexcept {
  std::array<char, kCheckLength> check;
  std::uint32_t rest = crc32(text);
  for (auto digit = check.rbegin(); digit != check.rend(); ++digit) {
    *digit = kBase62[rest % kBase62.size()];
    rest /= static_cast<std::uint32_t>(kBase62.size());
  }
  return check;
}

std::string_view compose_key(std::string_view prefix, std::string_view env, std::string_view secret,
                             std::span<char> out) noexcept {
  std::size_t length = 0;
  for (const std::string_view part : {prefix, std::string_view("_"), env, std::string_view("_"), secret}) {
    length = append(out, length, part);
  }
  const auto check = key_check({out.data(), length});
  length = append(out, length, {check.data(), check.size()});
  return {out.data(), length};
}

bool is_presentable(std::string_view text) noexcept {
  if (text.size() < kMinKeyLength || text.size() > kMaxKeyLength) {
    return false;
  }
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<std::uint8_t>(c);
    return byte > 0x20 && byte != 0x7f;
  });
}

std::string_view redact_key(std::string_view text, std::span<char> out) noexcept {
  KeyParts parts;
  std::size_t length = 0;
  // A key of another form may well begin `<something>_<something>_` and carry its secret there.
  if (split_key(text, parts)) {
    for (const std::string_view part : {parts.prefix, std::string_view("_"), parts.env, std::string_view("_")}) {
      length = append(out, length, part);
    }
  }
  length = append(out, length, kRedacted);
  return {out.data(), length};
}

}  // namespace apikey
