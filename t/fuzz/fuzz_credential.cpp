// Everything a client can write where a key is looked for: headers, queries, cookies, base64, the key itself.
#include <string>

#include "apikey/credential.hpp"
#include "fuzz_input.hpp"

using apikey::Format;
using apikey::Found;
using apikey::KeyParts;
using apikey::NamedValue;
using apikey::SourceKind;

namespace {

bool is_within(std::string_view part, std::string_view whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void judge(std::string_view value) {
  for (int kind = 0; kind <= static_cast<int>(SourceKind::variable); ++kind) {
    const Found strict = apikey::judge_credential(static_cast<SourceKind>(kind), Format::strict, value);
    const Found any = apikey::judge_credential(static_cast<SourceKind>(kind), Format::any, value);
    KeyParts parts;
    require((strict == Found::key) == apikey::parse_key(value, parts));
    require(strict != Found::key || any == Found::key);
    require((any != Found::key) || apikey::is_presentable(value));
    require((strict == Found::none) == value.empty() && (any == Found::none) == value.empty());
  }
}

void redact(std::string_view value) {
  std::array<char, apikey::kMaxPrefixLength + apikey::kMaxEnvLength + 6> out;
  const std::string_view shown = apikey::redact_key(value, out);
  require(shown.ends_with("****"));
  require(shown.size() == 4 || value.starts_with(shown.substr(0, shown.size() - 4)));
}

// After the cuts, another look finds nothing of that name.
void hide(bool (*next)(std::string_view&, std::string_view, NamedValue&) noexcept, std::string_view text,
          std::string_view name) {
  std::string remaining;
  std::string_view rest = text;
  const char* kept = text.data();
  NamedValue found;
  while (next(rest, name, found)) {
    require(is_within(found.whole, text) && is_within(found.value, found.whole) && !found.whole.empty());
    require(found.whole.data() >= kept);
    remaining.append(kept, found.whole.data());
    kept = found.whole.data() + found.whole.size();
  }
  remaining.append(kept, text.data() + text.size());
  std::string_view left = remaining;
  require(!next(left, name, found));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const std::string_view name = input.text();
  const std::string_view text = input.remaining_text();
  judge(text);
  redact(text);
  require(is_within(apikey::scheme_token(text, name), text));
  std::array<char, apikey::kBasicBufferSize> buffer;
  for (const Format format : {Format::strict, Format::any}) {
    for (const std::string_view token : {apikey::scheme_token(text, "Basic"), text}) {
      const apikey::Judged judged = apikey::judge_basic(format, token, buffer);
      require(is_within(judged.value, {buffer.data(), buffer.size()}));
      require(judged.found != Found::key || apikey::is_presentable(judged.value));
    }
  }
  std::string_view decoded;
  if (apikey::percent_decode(text, buffer, decoded)) {
    require(is_within(decoded, text) || is_within(decoded, {buffer.data(), buffer.size()}));
    require(decoded.size() <= text.size());
  }
  if (!name.empty() && name.find_first_of("=;&,% \t") == std::string_view::npos) {
    hide(apikey::next_in_query, text, name);
    hide(apikey::next_in_cookie, text, name);
    hide(apikey::next_in_protocols, text, name);
  }
  return 0;
}
