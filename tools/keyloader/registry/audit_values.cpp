// Which values of an entry are personal, and their way into the table and back.
#include "registry/audit_values.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <functional>

#include "registry/fields.hpp"

namespace keyloader {
namespace {

constexpr std::string_view kMark = "salted-sha256:";
constexpr std::size_t kSaltSize = 16;
constexpr std::size_t kMostKept = 4096;  // values in memory: those of an import would fill it
using Salt = std::array<std::uint8_t, kSaltSize>;

bool is_hashed(std::string_view text) {
  const std::string_view digits = text.substr(std::min(kMark.size(), text.size()));
  return text.starts_with(kMark) && digits.size() == 2 * Hash{}.size() &&
         digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string hashed_text(const Salt& salt, std::string_view value) {
  std::string bytes(salt.begin(), salt.end());
  bytes += value;
  Hash hash{};
  if (EVP_Digest(bytes.data(), bytes.size(), hash.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    throw Failure("libcrypto could not compute a SHA-256");
  }
  return std::string{kMark} + hex(hash);
}

// Plans and roles are no persons, nor are peppers and generations: of their entries only the reason is personal.
bool is_about_owner(std::string_view action) {
  return action.starts_with("owner.") || action.starts_with("key.") || action.starts_with("quota.") ||
         action.starts_with("approval.");
}

// Of a key the object is its id, as it is of a key's quota; of an erasure it is the owner's id.
bool has_owner_as_object(const AuditEntry& entry) {
  if (entry.action.starts_with("quota.")) {
    return field_of(entry.after, "key").is_null();
  }
  return entry.action.starts_with("owner.") && entry.action != "owner.erase";
}

using Edit = std::function<void(std::string& text)>;

void edit_texts(Json& json, const Edit& edit) {
  if (json.is_string()) {
    auto& text = json.get_ref<std::string&>();
    if (!text.empty()) {
      edit(text);
    }
  } else if (json.is_object()) {
    for (auto& [name, value] : json.items()) {
      edit_texts(value, edit);
    }
  }
}

constexpr std::array<const char*, 2> kPersonalAlways = {"reason", "revoked_reason"};
constexpr std::array<const char*, 5> kPersonalOfOwners = {"name", "email", "owner", "meta", "ref"};

void edit_state(Json& state, std::string_view action, const Edit& edit) {
  if (!state.is_object()) {
    return;
  }
  const auto edit_field = [&](const char* name) {
    if (const auto found = state.find(name); found != state.end()) {
      edit_texts(*found, edit);
    }
  };
  std::for_each(kPersonalAlways.begin(), kPersonalAlways.end(), edit_field);
  if (is_about_owner(action)) {
    std::for_each(kPersonalOfOwners.begin(), kPersonalOfOwners.end(), edit_field);
  }
}

// The hash of each text of an entry that was erased, by the text's address.
using ErasedTexts = std::unordered_map<const std::string*, std::string>;

bool is_other_erased(const Json& before, const Json& after, const ErasedTexts& erased) {
  const auto hash_of = [&](const Json& text) {
    const auto found = erased.find(text.get_ptr<const std::string*>());
    return found == erased.end() ? std::string{} : found->second;
  };
  const std::string was = hash_of(before);
  const std::string is = hash_of(after);
  return !was.empty() && !is.empty() && was != is;
}

// What is the same text now, and was not before it was erased.
void mark_changed(AuditEntry& entry, const ErasedTexts& erased) {
  const auto mark = [&](const Json& before, Json& after) {
    if (is_other_erased(before, after, erased)) {
      after = kErasedOther;
    }
  };
  const auto compare = [&](const char* name) {
    const auto before = entry.before.find(name);
    const auto after = entry.after.find(name);
    if (before == entry.before.end() || after == entry.after.end()) {
      return;
    }
    mark(*before, *after);
    if (before->is_object() && after->is_object()) {
      for (auto& [member, value] : after->items()) {
        if (const auto other = before->find(member); other != before->end()) {
          mark(*other, value);
        }
      }
    }
  };
  std::for_each(kPersonalAlways.begin(), kPersonalAlways.end(), compare);
  std::for_each(kPersonalOfOwners.begin(), kPersonalOfOwners.end(), compare);
}

// What is personal of whom the entry is about, and of whoever made the change: the one list.
void edit_subject(AuditEntry& entry, const Edit& edit) {
  if (has_owner_as_object(entry)) {
    edit(entry.object);
  }
  edit_state(entry.before, entry.action, edit);
  edit_state(entry.after, entry.action, edit);
}

void edit_actor(AuditEntry& entry, const Edit& edit) {
  for (const char* name : {"user", "sudo_user"}) {
    if (const auto found = entry.actor.find(name); found != entry.actor.end()) {
      edit_texts(*found, edit);
    }
  }
}

void edit_all(AuditEntry& entry, const Edit& edit) {
  edit_subject(entry, edit);
  edit_actor(entry, edit);
}

template <typename Value>
void keep(std::unordered_map<std::string, Value>& kept, const std::string& name, const Value& value) {
  if (kept.size() >= kMostKept) {
    kept.clear();
  }
  kept.insert_or_assign(name, value);
}

}  // namespace

std::string AuditValues::hashed(const std::string& value, const OwnerId* owner) {
  const std::string name = (owner != nullptr ? hex(*owner) : std::string{}) + ":" + value;
  if (const auto found = hashes_.find(name); found != hashes_.end()) {
    return found->second;
  }
  const auto bind_owner = [&](Query& query) -> Query& {
    return owner != nullptr ? query.bind(*owner) : query.bind_null();
  };
  std::string text;
  Query known = database_.query("SELECT hashed FROM audit_values WHERE value = ? AND owner IS ?");
  if (bind_owner(known.bind(value)).step()) {
    text = known.text(0);
  } else {
    Salt salt{};
    if (RAND_bytes(salt.data(), static_cast<int>(salt.size())) != 1) {
      throw Failure("libcrypto has no random bytes to give");
    }
    text = hashed_text(salt, value);
    Query query = database_.query("INSERT INTO audit_values(hashed, owner, salt, value) VALUES(?, ?, ?, ?)");
    bind_owner(query.bind(text)).bind(salt).bind(value).run();
  }
  keep(hashes_, name, text);
  return text;
}

ChainedTexts AuditValues::hide(const AuditEntry& entry, const OwnerId* owner) {
  AuditEntry chained = entry;
  edit_subject(chained, [&](std::string& text) { text = hashed(text, owner); });
  edit_actor(chained, [&](std::string& text) { text = hashed(text, nullptr); });
  return {.actor = chained.actor.dump(),
          .object = std::move(chained.object),
          .before = chained.before.dump(),
          .after = chained.after.dump()};
}

const AuditValues::Shown& AuditValues::value_of(const std::string& hashed) {
  if (const auto found = values_.find(hashed); found != values_.end()) {
    return found->second;
  }
  Query query = database_.query("SELECT value, erased FROM audit_values WHERE hashed = ?");
  Shown shown{.text = hashed};
  if (query.bind(hashed).step()) {
    shown.is_erased = query.number(1) != 0;
    shown.text = shown.is_erased ? std::string{kErased} : query.text(0);
  }
  keep(values_, hashed, shown);
  return values_.at(hashed);
}

// A text of version 1 that looks like a hash is none that is known, and is shown as it is.
void AuditValues::show(AuditEntry& entry) {
  ErasedTexts erased;
  edit_all(entry, [&](std::string& text) {
    if (is_hashed(text)) {
      const Shown& shown = value_of(text);
      if (shown.is_erased) {
        erased[&text] = text;
      }
      text = shown.text;
    }
  });
  entry.has_erased = entry.has_erased || !erased.empty();
  if (!erased.empty()) {
    mark_changed(entry, erased);
  }
}

// Each entry says by itself of which version it is: of 2, its user is a hash, which no name of a user looks like. An
// entry further on that says otherwise could be anybody's.
void AuditValues::check(const AuditEntry& entry) {
  first_checked_ = std::min(first_checked_.value_or(entry.seq), entry.seq);
  if (!is_hashed(string_of(field_of(entry.actor, "user")))) {
    if (first_hashed_.value_or(entry.seq) < entry.seq) {
      throw Failure(fmt::format("entry {} of the audit is of version 1, and follows entries of version 2", entry.seq));
    }
    return;
  }
  if (entry.action == "audit.version" && first_hashed_.value_or(entry.seq) < entry.seq) {
    throw Failure(fmt::format("entry {} of the audit says that version 2 begins there, and it began with entry {}",
                              entry.seq, *first_hashed_));
  }
  first_hashed_ = std::min(first_hashed_.value_or(entry.seq), entry.seq);
  if (entry.action == "owner.erase") {
    const Json values = field_of(entry.after, "values");
    erasures_[entry.seq] = {.owner = entry.object,
                            .values = values.is_number_unsigned() ? values.get<std::uint64_t>() : 0};
  }
  AuditEntry copy = entry;
  edit_all(copy, [&](const std::string& text) {
    if (is_hashed(text)) {
      check_value(text, entry.seq);
    }
  });
}

// That a value is what was hashed is checked of all at once (check_all).
void AuditValues::check_value(const std::string& hashed, std::uint64_t seq) {
  Query query = database_.query("SELECT erased FROM audit_values WHERE hashed = ?");
  if (!query.bind(hashed).step()) {
    throw Failure(fmt::format("a value of entry {} of the audit has been removed", seq));
  }
  const std::uint64_t erased = query.count(0);
  if (erased != 0 && erased <= seq) {
    throw Failure(fmt::format("a value of entry {} of the audit is gone, and no later erasure accounts for it", seq));
  }
}

void AuditValues::check_all() {
  Query values = database_.query("SELECT hashed, salt, value FROM audit_values WHERE erased = 0");
  while (values.step()) {
    Salt salt{};
    values.bytes(1, salt);
    if (hashed_text(salt, values.view(2)) != values.view(0)) {
      throw Failure("a value of the audit has been altered: it is not what was hashed");
    }
  }
  // Each erasure says in its entry how many values there were, and it erases those of one owner.
  Query erased = database_.query(
      "SELECT erased, count(*), min(lower(hex(owner))), min(owner IS NOT NULL), count(DISTINCT owner)"
      " FROM audit_values WHERE erased <> 0 AND erased >= ? GROUP BY erased");
  erased.bind(first_checked_.value_or(1));
  while (erased.step()) {
    const auto found = erasures_.find(erased.count(0));
    if (found == erasures_.end() || found->second.values != erased.count(1) || found->second.owner != erased.view(2) ||
        erased.number(3) == 0 || erased.number(4) != 1) {
      throw Failure(fmt::format(
          "{} of the audit are gone, and no erasure accounts for them: entry {} is not the one that did it, "
          "or the end of the audit was cut off",
          erased.number(1) == 1 ? std::string{"a value"} : fmt::format("{} values", erased.number(1)),
          erased.number(0)));
    }
  }
}

}  // namespace keyloader
