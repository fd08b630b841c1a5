// From the named values of one line to a key in the registry. Called by import.cpp.
// Must never show a value: columns get mixed up, and then it is a key.
#include "import_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "apikey/key_form.hpp"
#include "apikey/scope_set.hpp"
#include "entropy.hpp"
#include "key_fields.hpp"
#include "limit_rules.hpp"
#include "owner.hpp"
#include "registry/sqlite_rows.hpp"

namespace keyloader {
namespace {

constexpr std::array<std::string_view, 18> kColumns{
    "key", "hint",    "ref",        "digest",   "owner", "name",  "scopes", "roles",         "plan",
    "env", "expires", "not_before", "allow_ip", "rate",  "burst", "quota",  "rolling_quota", "concurrency"};
// A column of limits: the words of one option.
struct LimitColumn {
  const char* name;
  Texts LimitOptions::*words;
  const char* form;
};
constexpr std::array<LimitColumn, 5> kLimitColumns{
    {{"rate", &LimitOptions::rates, "rates such as 100/s or tokens=90000/m"},
     {"burst", &LimitOptions::bursts, "bursts of rates that are named in this line, such as 200 or tokens=90000"},
     {"quota", &LimitOptions::quotas, "quotas such as 1000000/month or tokens.month=2000000/month"},
     {"rolling_quota", &LimitOptions::rolling_quotas, "rolling quotas such as 1000/24h"},
     {"concurrency", &LimitOptions::concurrencies, "numbers of requests at once, such as 20"}}};
constexpr std::string_view kMetaPrefix = "meta.";
constexpr std::size_t kShortestWordHidden = 2;

constexpr std::array<std::string_view, 8> kListColumns{"scopes", "roles", "allow_ip",      "rate",
                                                       "burst",  "quota", "rolling_quota", "concurrency"};

// Of a column that is no list.
std::optional<std::string> value_of(const Columns& columns, const std::string& name) {
  const auto found = columns.find(name);
  return found == columns.end() ? std::nullopt : std::optional(found->second.front());
}

// An element stays one word, whatever it is joined with later.
const Texts& words_of(const Texts& words) {
  const bool are_words = std::all_of(words.begin(), words.end(), [](const std::string& word) {
    return !word.empty() && std::none_of(word.begin(), word.end(), [](unsigned char c) { return c <= ' '; });
  });
  if (!are_words) {
    throw UsageError("an element of the list is empty or holds a space; write each word as an element of its own");
  }
  return words;
}

void check_scope_words(const Texts& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (apikey::is_valid_grant(words[i]) && apikey::is_reserved_scope(words[i])) {
      throw UsageError(fmt::format(
          "word {} begins with apikey:, which is reserved; import without it, then use `keyloader admin set`", i + 1));
    }
    if (!apikey::is_valid_grant(words[i])) {
      throw UsageError(fmt::format(
          "word {} is no scope: segments of A-Z a-z 0-9 _ . / - joined by ':', `*` only as the last", i + 1));
    }
  }
}

void check_role_words(Registry& registry, const Texts& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!is_none(words[i]) && !registry.role(words[i])) {
      throw UsageError(fmt::format("word {} is no role; make it with `keyloader role create`", i + 1));
    }
  }
}

// A ref is unique per owner. The names of owners have no control characters.
std::string owner_and_ref(const Key& key) { return key.owner + '\n' + key.ref; }

std::string bytes_of(const apikey::Digest& digest) { return {digest.bytes.begin(), digest.bytes.end()}; }

// What a key of a foreign form is guessed by must not be told: the rest of it has to be strong alone.
bool has_hint(std::string_view key) {
  return apikey::has_own_form(key) ||
         (key.size() > kHintLength &&
          estimated_entropy_bits(key) - estimated_entropy_bits(key.substr(key.size() - kHintLength)) >=
              kLowEntropyBits);
}

// `reason` without anything of `values`.
std::string without_values(std::string reason, const Texts& values) {
  Texts hidden = values;
  for (const std::string& value : values) {
    const Texts words = split_words(value);
    hidden.insert(hidden.end(), words.begin(), words.end());
  }
  std::sort(hidden.begin(), hidden.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  for (const std::string& word : hidden) {
    const std::string quoted = "\"" + word + "\"";
    for (std::size_t at = 0; word.size() >= kShortestWordHidden && (at = reason.find(quoted)) != std::string::npos;) {
      reason.replace(at, quoted.size(), "the value");
    }
  }
  return reason;
}

}  // namespace

bool is_list_column(std::string_view name) {
  return std::find(kListColumns.begin(), kListColumns.end(), name) != kListColumns.end();
}

bool is_known_column(std::string_view name) {
  return std::find(kColumns.begin(), kColumns.end(), name) != kColumns.end() ||
         (name.size() > kMetaPrefix.size() && name.substr(0, kMetaPrefix.size()) == kMetaPrefix);
}

void check_columns(const std::vector<std::string>& names) {
  if (std::none_of(names.begin(), names.end(), is_known_column)) {
    throw UsageError(
        fmt::format("no column is known; they are {} and meta.<name>, and the first line of a CSV file names them",
                    fmt::join(kColumns, ", ")));
  }
  Texts unknown;
  std::copy_if(names.begin(), names.end(), std::back_inserter(unknown),
               [](const auto& name) { return !is_known_column(name); });
  if (!unknown.empty()) {
    throw UsageError(fmt::format("unknown column(s): {}; known are {} and meta.<name>", fmt::join(unknown, ", "),
                                 fmt::join(kColumns, ", ")));
  }
  Texts sorted = names;
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    throw UsageError(fmt::format("column {} is there twice", *twice));
  }
}

LineImporter::LineImporter(const DataDir& directory, Registry& registry, Change& change, bool creates_owners)
    : registry_(registry),
      change_(change),
      methods_(directory, registry),
      methods_to_compare_(registry.methods_in_use()),
      creates_owners_(creates_owners) {
  methods_to_compare_.push_back(methods_.current());
  methods_to_compare_.emplace_back(kPlainMethod);
  methods_to_compare_ = sorted_once(methods_to_compare_);
}

std::optional<Refusal> LineImporter::add(std::uint64_t line, Columns& columns) {
  const auto refuse = [&](const std::string& reason) {
    const auto found = columns.find(column_);
    return Refusal{line, column_, without_values(reason, found == columns.end() ? Texts{} : found->second)};
  };
  try {
    Key key;
    key.created = wall_clock();
    key.id = new_key_id();
    key.family = key.id;
    set_fields(line, columns, key);
    set_secret(line, columns, key);
    const bool has_owner = set_owner(columns, key);
    column_ = "ref";
    require_free_ref(key);
    column_.clear();
    if (!has_owner) {
      change_.require_allowed(key, "import");  // before its owner is made: of a refused line nothing stays
      column_ = "owner";
      change_.create(new_owner(key.owner));
      column_.clear();
    }
    change_.create(key, "import");
    seen_.emplace(bytes_of(key.digest), line);
    if (!key.ref.empty()) {
      refs_.emplace(owner_and_ref(key), line);
    }
    return std::nullopt;
  } catch (const UsageError& error) {
    return refuse(error.what());
  } catch (const NotAllowed& error) {
    return refuse(error.reasons());
  }
}

void LineImporter::set_fields(std::uint64_t line, const Columns& columns, Key& key) {
  // One column at a time, so that a refusal knows where it belongs.
  const auto one = [&](const std::string& column, auto&& set) {
    column_ = column;
    if (const auto found = columns.find(column); found != columns.end()) {
      KeyFields fields;
      set(fields, found->second);
      try {
        apply(fields, registry_, key);
      } catch (const Failure& failure) {
        throw UsageError(failure.what());
      }
    }
  };
  one("name", [](KeyFields& fields, const Texts& value) { fields.name = value.front(); });
  one("ref", [](KeyFields& fields, const Texts& value) { fields.ref = value.front(); });
  one("scopes", [](KeyFields& fields, const Texts& words) {
    check_scope_words(words_of(words));
    fields.scopes = words;
  });
  one("roles", [this](KeyFields& fields, const Texts& words) {
    check_role_words(registry_, words_of(words));
    fields.roles = words;
  });
  one("plan", [this](KeyFields& fields, const Texts& value) {
    if (!is_none(value.front()) && !registry_.plan(value.front())) {
      throw UsageError("there is no such plan; make it with `keyloader plan create`");
    }
    fields.plan = value.front();
  });
  one("env", [](KeyFields& fields, const Texts& value) { fields.env = value.front(); });
  one("not_before", [](KeyFields& fields, const Texts& value) { fields.not_before = value.front(); });
  one("expires", [](KeyFields& fields, const Texts& value) { fields.expires = value.front(); });
  one("allow_ip", [](KeyFields& fields, const Texts& words) { fields.allow_ip = words_of(words); });
  set_limits(line, columns, key);
  for (const auto& [column, value] : columns) {
    if (column.compare(0, kMetaPrefix.size(), kMetaPrefix) == 0) {
      column_ = column;
      set_meta_value(key.meta, column.substr(kMetaPrefix.size()), value.front());
    }
  }
}

void LineImporter::set_limits(std::uint64_t line, const Columns& columns, Key& key) {
  for (const LimitColumn& each : kLimitColumns) {
    column_ = each.name;
    if (const auto found = columns.find(column_); found != columns.end()) {
      LimitOptions options;
      options.*each.words = words_of(found->second);
      try {
        apply_limits(key.limits, options, LimitHolder::key);
      } catch (const UsageError&) {
        // What it says quotes parts of the value.
        throw UsageError(fmt::format("the words in it are not all {}", each.form));
      }
    }
  }
  column_.clear();
  try {
    for (std::string& sentence : check_limits(registry_, key, "the key")) {
      warnings_.push_back({line, "limits", std::move(sentence)});
    }
  } catch (const Failure& failure) {
    throw UsageError(failure.what());
  }
}

void LineImporter::set_secret(std::uint64_t line, const Columns& columns, Key& key) {
  const auto text = value_of(columns, "key");
  const auto digest = value_of(columns, "digest");
  column_ = digest ? "digest" : "key";
  if (text.has_value() == digest.has_value()) {
    throw UsageError(text ? "give either a key or its digest, not both" : "there is neither a key nor a digest");
  }
  if (digest) {
    set_digest(*digest, key);
    set_hint(columns, key);
    check_new(line, key.digest);
    return;
  }
  if (columns.count("hint") != 0) {
    column_ = "hint";
    throw UsageError("the key itself tells its hint; give one beside a digest only");
  }
  const bool has_env = columns.count("env") != 0;
  const std::string env = key.env;
  set_key(line, *text, key);
  if (has_env && env != key.env) {
    column_ = "env";
    throw UsageError("the key itself names another environment");
  }
}

void LineImporter::set_key(std::uint64_t line, const std::string& text, Key& key) {
  if (!apikey::is_presentable(text)) {
    throw UsageError(fmt::format("a key has {}-{} bytes that a header can carry: no space, no control character",
                                 apikey::kMinKeyLength, apikey::kMaxKeyLength));
  }
  if (apikey::has_own_form(text)) {
    apikey::KeyParts parts;
    if (!apikey::parse_key(text, parts)) {
      throw UsageError("it has the form of our own keys, but its checksum is wrong: nginx would refuse it");
    }
    key.prefix = parts.prefix;
    key.env = parts.env;
  } else if (const double bits = estimated_entropy_bits(text); bits < kLowEntropyBits) {
    warnings_.push_back({line, "key",
                         fmt::format("the key has about {:.0f} bits, {:.0f} are advised: replace it soon, and limit "
                                     "failed attempts",
                                     bits, kLowEntropyBits)});
  }
  for (const std::string& method : methods_to_compare_) {
    check_new(line, methods_.digest(method, text));
  }
  if (has_hint(text)) {
    key.hint = hint_of(text);
  }
  key.method = methods_.current();
  key.digest = methods_.digest(key.method, text);
}

void LineImporter::set_hint(const Columns& columns, Key& key) {
  if (const auto hint = value_of(columns, "hint")) {
    column_ = "hint";
    if (!is_valid_hint(*hint)) {
      throw UsageError(fmt::format("a hint is the last {} characters of the key", kHintLength));
    }
    key.hint = *hint;
    column_ = "digest";
  }
}

void LineImporter::set_digest(const std::string& text, Key& key) {
  const std::size_t colon = text.rfind(':');
  key.method = colon == std::string::npos ? std::string{kPlainMethod} : text.substr(0, colon);
  const std::string digits = lower_case(colon == std::string::npos ? text : text.substr(colon + 1));
  if (digits.size() != 2 * key.digest.bytes.size() || !apikey::from_hex(digits, key.digest.bytes)) {
    throw UsageError("a digest is 64 hex digits (SHA-256 of the key), or hmac-sha256:<pepper id>: and 64 hex digits");
  }
  if (!methods_.knows(key.method)) {
    throw UsageError("the registry has no such pepper; put it into peppers/ and run `keyloader pepper create`");
  }
}

void LineImporter::check_new(std::uint64_t line, const apikey::Digest& digest) {
  if (const auto seen = seen_.find(bytes_of(digest)); seen != seen_.end() && seen->second != line) {
    throw UsageError(fmt::format("line {} holds the same key", seen->second));
  }
  if (const auto known = registry_.key(digest)) {
    throw UsageError(fmt::format("the registry has this key already, as {}", text_of(known->id)));
  }
}

void LineImporter::require_free_ref(const Key& key) {
  // Before the registry is asked, which has the line's key until all of them are refused: its id tells nobody anything.
  if (const auto seen = refs_.find(owner_and_ref(key)); seen != refs_.end()) {
    throw UsageError(fmt::format("line {} has the same ref for this owner", seen->second));
  }
  if (const auto other = key_with_ref_of(registry_, key)) {
    throw UsageError(ref_taken(*other, "this ref"));
  }
}

// RETURNS: whether there is such an owner; else one is to be made.
bool LineImporter::set_owner(const Columns& columns, Key& key) {
  column_ = "owner";
  const auto name = value_of(columns, "owner");
  if (!name) {
    throw UsageError("there is no owner");
  }
  key.owner = *name;
  if (registry_.owner(*name)) {
    return true;
  }
  if (!creates_owners_) {
    throw UsageError("there is no such owner; make it first, or add --create-owners");
  }
  static_cast<void>(new_owner(*name));  // throws for what can be no name
  return false;
}

}  // namespace keyloader
