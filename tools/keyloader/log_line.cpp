// Reading lines of both kinds. Called by the search through log files.
// Must never believe that a text in a line is the module's because it looks so: a client may write the same into its
// URI.
#include "log_line.hpp"

#include <algorithm>
#include <ctime>

#include "apikey/line_secrets.hpp"
#include "apikey/plain_text.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kDryRun = "_dry_run";
constexpr std::string_view kRequestId = ", request_id ";

// nginx escapes what JSON wants escaped, and leaves bytes that are no UTF-8 as they are.
std::string in_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const apikey::Character character = apikey::next_character(text);
    if (character.is_encoded) {
      out += character.bytes;
    } else {
      out += '?';
    }
  }
  return out;
}

void set_outcome(LoggedDecision& decision, std::string_view outcome) {
  decision.is_dry_run = outcome.ends_with(kDryRun);
  decision.outcome = outcome.substr(0, outcome.size() - (decision.is_dry_run ? kDryRun.size() : 0));
}

Texts split(std::string_view words, std::string_view between) {
  Texts all;
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(between), words.size());
    all.emplace_back(words.substr(0, end));
    words.remove_prefix(std::min(end + between.size(), words.size()));
  }
  return all;
}

std::string text_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_structured() || found->is_null()) {
    return {};
  }
  return without_keys(found->is_string() ? found->get<std::string>() : found->dump());
}

Seconds time_of_iso(const std::string& text) {
  try {
    return parse_past(text, wall_clock());
  } catch (const UsageError&) {
    return 0;
  }
}

std::optional<LoggedDecision> parse_json_line(std::string_view line, std::string_view instance) {
  const Json json = Json::parse(in_utf8(line), nullptr, false);
  if (!json.is_object() || text_in(json, "instance") != instance || text_in(json, "outcome").empty()) {
    return std::nullopt;
  }
  LoggedDecision decision;
  decision.time_text = text_in(json, "time");
  decision.time = time_of_iso(decision.time_text);
  set_outcome(decision, text_in(json, "outcome"));
  decision.status = text_in(json, "status");
  decision.key = text_in(json, "key");
  decision.owner = text_in(json, "owner");
  decision.env = text_in(json, "env");
  decision.required = split(text_in(json, "required"), " ");
  decision.limit = text_in(json, "limit");
  decision.location = text_in(json, "location");
  decision.generation = text_in(json, "generation");
  decision.address = text_in(json, "address");
  decision.scheme = text_in(json, "scheme");
  decision.method = text_in(json, "method");
  decision.host = text_in(json, "host");
  decision.origin = text_in(json, "origin");
  decision.request = text_in(json, "request");
  return decision;
}

// "2026/11/27 02:13:04", in the time zone of this machine.
Seconds time_of_error_log(const std::string& text) {
  std::tm parts{};
  parts.tm_isdst = -1;
  const char* end = strptime(text.c_str(), "%Y/%m/%d %H:%M:%S", &parts);
  return end == nullptr || *end != '\0' ? 0 : static_cast<Seconds>(std::mktime(&parts));
}

bool take(std::string_view& rest, std::string_view word) {
  if (!rest.starts_with(word)) {
    return false;
  }
  rest.remove_prefix(word.size());
  return true;
}

// Of digits; at least one.
bool take_number(std::string_view& rest) {
  const std::size_t end = std::min(rest.find_first_not_of("0123456789"), rest.size());
  rest.remove_prefix(end);
  return end > 0;
}

// "2026/11/27 02:13:04 [info] 812#812: *5 ". RETURNS: false for what nginx has not written.
bool take_head(std::string_view& rest, std::string& time) {
  constexpr std::size_t time_size = 19;
  if (rest.size() <= time_size) {
    return false;
  }
  time = rest.substr(0, time_size);
  rest.remove_prefix(time_size);
  if (!take(rest, " [")) {
    return false;
  }
  const std::size_t end_of_level = rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz");
  rest.remove_prefix(std::min(end_of_level, rest.size()));
  if (!take(rest, "] ")) {
    return false;
  }
  if (!take_number(rest) || !take(rest, "#") || !take_number(rest) || !take(rest, ": ")) {
    return false;
  }
  return !take(rest, "*") || (take_number(rest) && take(rest, " "));
}

// Up to the first `end` outside of quotes: names in quotes hold none (the module writes `?` for them).
std::string_view take_until(std::string_view& rest, std::string_view end) {
  bool is_quoted = false;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (!is_quoted && rest.substr(i).starts_with(end)) {
      const std::string_view taken = rest.substr(0, i);
      rest.remove_prefix(i + end.size());
      return taken;
    }
    is_quoted = is_quoted != (rest[i] == '"');
  }
  return {};
}

// What stands behind `name`, in quotes or up to the next comma; empty: it is not there.
std::string part(std::string_view text, std::string_view name) {
  const std::size_t at = text.find(name);
  if (at == std::string_view::npos) {
    return {};
  }
  text.remove_prefix(at + name.size());
  const bool is_quoted = take(text, "\"");
  return without_keys(in_utf8(text.substr(0, text.find(is_quoted ? '"' : ','))));
}

std::optional<LoggedDecision> parse_error_line(std::string_view line, std::string_view instance) {
  LoggedDecision decision;
  std::string_view rest = line;
  if (!take_head(rest, decision.time_text) || !take(rest, "apikey: ")) {
    return std::nullopt;
  }
  const std::string_view sentence = take_until(rest, kRequestId);
  if (sentence.empty() || !take(rest, instance) || (!rest.empty() && !rest.starts_with(", "))) {
    return std::nullopt;
  }
  decision.time = time_of_error_log(decision.time_text);
  decision.words = without_keys(in_utf8(sentence));
  std::string_view behind = sentence;
  if (take(behind, "refused: ") || take(behind, "let pass: ")) {
    set_outcome(decision, behind.substr(0, behind.find_first_of(" ,")));
  } else {
    set_outcome(decision, sentence.substr(0, sentence.find(':')));
  }
  if (const std::size_t at = sentence.find(" (needs "); at != std::string_view::npos) {
    std::string_view scopes = sentence.substr(at + std::string_view{" (needs "}.size());
    scopes = scopes.substr(0, scopes.find(')'));
    decision.required = split(scopes, " or ");
  }
  decision.key = part(sentence, ", key ");
  decision.owner = part(sentence, ", owner ");
  decision.limit = part(sentence, ", limit ");
  decision.location = part(sentence, ", location ");
  decision.address = part(rest, ", client: ");
  decision.request = part(rest, ", request: ");
  decision.host = part(rest, ", host: ");
  return decision;
}

}  // namespace

// The module has put asterisks in place of keys. Whatever else may have written the line has not.
std::string without_keys(std::string text) {
  std::string_view found;
  while (apikey::find_secret(text, 0, {}, found)) {
    text.replace(static_cast<std::size_t>(found.data() - text.data()), found.size(), "****");
  }
  return text;
}

std::optional<LoggedDecision> parse_log_line(std::string_view line, std::string_view instance) {
  if (line.find(instance) == std::string_view::npos) {
    return std::nullopt;
  }
  return line.starts_with('{') ? parse_json_line(line, instance) : parse_error_line(line, instance);
}

}  // namespace keyloader
