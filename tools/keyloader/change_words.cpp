// Comparing the two states of an audit entry. Called by `audit list` and `usage statement`.
// Must never leave out a field because it is not understood: what is not known is shown as it is.
#include "change_words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "limit_text.hpp"
#include "output.hpp"
#include "registry/access.hpp"
#include "registry/audit_values.hpp"
#include "registry/fields.hpp"

namespace keyloader {
namespace {

// Of every object, and of no interest when it is new.
constexpr std::array<std::string_view, 7> kSelf = {"id",     "family", "created",    "digest_method",
                                                   "prefix", "hint",   "registry_id"};

bool is_nothing(const Json& value) {
  return value.is_null() || value == false || value == "" || (value.is_structured() && value.empty());
}

// A text as one word: one that holds what stands between fields could pass for other fields.
std::string text_words(const std::string& text) {
  const auto is_bare = [](char c) { return c > ' ' && c <= '~' && c != ',' && c != '=' && c != '"' && c != '\\'; };
  if (text == kErasedOther) {
    return std::string{kErased};
  }
  if (text != "none" && std::all_of(text.begin(), text.end(), is_bare)) {
    return text;
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c == '"' || c == '\\' ? "\\" : "";
    quoted += c;
  }
  return quoted + '"';
}

// Of a publication that took over: "generation 16 of registry 3f…".
std::string replaced_words(const Json& value) {
  Texts each;
  for (const Json& one : value) {
    const Json nginx = field_of(one, "nginx");
    const Json generation = field_of(one, "generation");
    const Json registry = field_of(one, "registry_id");
    if (!generation.is_number() || !registry.is_string()) {
      return json_text(value);
    }
    each.push_back(fmt::format("generation {} of registry {}{}", generation.dump(), text_words(string_of(registry)),
                               nginx.is_string() ? " in nginx " + text_words(string_of(nginx)) : ""));
  }
  return fmt::format("{}", fmt::join(each, " and "));
}

bool are_numbers(const Json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& each) { return each.is_number(); });
}

std::string words(const std::string& name, const Json& value) {
  if (value.is_null() || value == "" || (value.is_structured() && value.empty())) {
    return "none";
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "yes" : "no";
  }
  if (value.is_string()) {
    return text_words(value.get<std::string>());
  }
  if (name == "replaced" && value.is_array()) {
    return replaced_words(value);
  }
  if (name == "entries" && are_numbers(value) && value.size() == 2) {
    return value[0] == value[1] ? value[0].dump() : fmt::format("{} to {}", value[0].dump(), value[1].dump());
  }
  Texts texts;
  for (const Json& each : value.is_array() ? value : Json::array()) {
    if (!each.is_string()) {
      return json_text(value);
    }
    texts.push_back(text_words(each.get<std::string>()));
  }
  return value.is_array() ? fmt::format("{}", fmt::join(texts, " ")) : json_text(value);
}

// "none", and of an administrator's key what it means to have none.
std::string bound_words(const std::string& name, const Json& value, const Json& key) {
  std::string text = words(name, value);
  const Json scopes = field_of(key, "admin_scopes");
  if (is_nothing(scopes)) {
    return text;  // it is no such key any more
  }
  if (name == "teams") {
    return text + " (all teams)";
  }
  if (name != "may_grant") {
    return text;
  }
  const bool is_admin = holds_role(texts_of(fields_of(key), "admin_scopes"), "admin");
  return text + (is_admin ? " (all scopes)" : " (no scope)");
}

// A burst that follows from the rate is not worth a word.
std::string limit_words(const Json& json) {
  const auto limit = limit_from(json);
  if (!limit) {
    return json_text(json);
  }
  std::string text = limit_text(*limit);
  if (limit->kind == apikey::LimitKind::rate && !limit->burst) {
    const std::string burst = fmt::format(" burst {}", burst_of(*limit));
    text.erase(text.find(burst), burst.size());
  }
  return text;
}

std::string label_of(const std::string& name) {
  std::string label = name == "revoked_reason" ? "reason" : name;
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

class Comparison {
 public:
  // Of a named part: a field, a limit, a value of meta.
  void add(const std::string& name, const std::string& before, const std::string& after, bool was_nothing) {
    text_ += fmt::format("{}{} {}{}", text_.empty() ? "" : ", ", name, was_nothing ? "" : before + " → ", after);
  }

  // By name; those that are the same are left out.
  void add_limits(const Json& before, const Json& after) {
    const auto limit = [](const Json& limits, const std::string& name) {
      const auto found = std::find_if(limits.begin(), limits.end(),
                                      [&](const Json& each) { return each.value("name", std::string{}) == name; });
      return found == limits.end() ? std::string{} : limit_words(*found);
    };
    std::set<std::string> names;
    for (const Json* const limits : {&before, &after}) {
      for (const Json& each : *limits) {
        names.insert(each.value("name", std::string{}));
      }
    }
    for (const std::string& name : names) {
      const std::string was = limit(before, name);
      const std::string is = limit(after, name);
      if (was != is) {
        add(name, was, is.empty() ? "none" : is, was.empty());
      }
    }
  }

  void add_object(const std::string& field, const Json& before, const Json& after) {
    Json all = before.is_object() ? before : Json::object();
    all.update(after.is_object() ? after : Json::object());
    for (const auto& [name, value] : all.items()) {
      const Json was = field_of(before, name);
      const Json is = field_of(after, name);
      if (was != is) {
        add(fmt::format("{}.{}", label_of(field), text_words(name)), words(name, was), words(name, is),
            is_nothing(was));
      }
    }
  }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

bool are_limits(const Json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& each) { return each.is_object(); });
}

}  // namespace

std::string change_words(const AuditEntry& entry, std::span<const std::string_view> only) {
  const bool is_deletion = entry.action.ends_with(".delete");
  if (is_deletion || !entry.after.is_object()) {
    AuditEntry made = entry;
    made.action.clear();
    made.after = entry.before;
    made.before = nullptr;
    std::string was = made.after.is_object() ? change_words(made, only) : std::string{};
    was = was.empty() ? was : "was " + was;
    const Json reason = field_of(entry.after, "reason");
    return reason.is_string() ? fmt::format("{}{}reason {}", was, was.empty() ? "" : ", ", words("reason", reason))
                              : was;
  }
  const bool is_new = !entry.before.is_object();
  Json all = is_new ? Json::object() : entry.before;  // a field may be in one state only: what is empty may be left out
  all.update(entry.after);
  Comparison comparison;
  for (const auto& [name, value] : all.items()) {
    const Json before = field_of(entry.before, name);
    const Json after = field_of(entry.after, name);
    const bool is_asked_for = only.empty() || std::find(only.begin(), only.end(), name) != only.end();
    const bool is_self = is_new && (std::find(kSelf.begin(), kSelf.end(), name) != kSelf.end() ||
                                    (name == "name" && after == entry.object));
    if (!is_asked_for || is_self || before == after || (is_nothing(before) && is_nothing(after))) {
      continue;
    }
    if (name == "limits" && (before.is_null() || are_limits(before)) && (after.is_null() || are_limits(after))) {
      comparison.add_limits(before.is_null() ? Json::array() : before, after.is_null() ? Json::array() : after);
    } else if (before.is_object() || after.is_object()) {
      comparison.add_object(name, before, after);
    } else {
      const bool was_nothing = before.is_null() || before == "" || (before.is_structured() && before.empty());
      const bool is_gone = !is_new && is_nothing(after);
      comparison.add(label_of(name), words(name, before),
                     is_gone ? bound_words(name, after, entry.after) : words(name, after), was_nothing);
    }
  }
  const Json quota = entry.after.value("quota", Json{});
  return quota.is_string() && !comparison.text().empty()
             ? fmt::format("{}: {}", quota.get<std::string>(), comparison.text())
             : comparison.text();
}

}  // namespace keyloader
