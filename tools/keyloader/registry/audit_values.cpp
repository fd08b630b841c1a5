// Which values of an entry are personal, and their way into the table and back.
#include "registry/audit_values.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <functional>

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
  return action.starts_with("owner.") || action.starts_with("key.") || action.starts_with("quota.");
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

void edit_state(Json& state, std::string_view action, const Edit& edit) {
  if (!state.is_object()) {
    return;
  }
  static constexpr std::array<const char*, 2> always = {"reason", "revoked_reason"};
  static constexpr std::array<const char*, 5> of_owners = {"name", "email", "owner", "meta", "ref"};
  const auto edit_field = [&](const char* name) {
    if (const auto found = state.find(name); found != state.end()) {
      edit_texts(*found, edit);
    }
  };
  std::for_each(always.begin(), always.end(), edit_field);
  if (is_about_owner(action)) {
    std::for_each(of_owners.begin(), of_owners.end(), edit_field);
  }
}

// What is personal of whom the entry is about, and of whoever made the change: the one list.
void edit_subject(AuditEntry& entry, const Edit& edit) {
  // Of a key the object is its id, and of an erasure the owner's.
  if (is_about_owner(entry.action) && entry.action != "owner.erase" && !key_id_from(entry.object)) {
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

void keep(std::unordered_map<std::string, std::string>& kept, const std::string& name, const std::string& value) {
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

const std::string& AuditValues::value_of(const std::string& hashed) {
  if (const auto found = values_.find(hashed); found != values_.end()) {
    return found->second;
  }
  Query query = database_.query("SELECT coalesce(value, ?2) FROM audit_values WHERE hashed = ?1");
  const std::string value = query.bind(hashed).bind(kErased).step() ? query.text(0) : hashed;
  keep(values_, hashed, value);
  return values_.at(hashed);
}

void AuditValues::show(AuditEntry& entry) {
  edit_all(entry, [&](std::string& text) {
    if (is_hashed(text)) {
      text = value_of(text);
      entry.has_erased = entry.has_erased || text == kErased;
    }
  });
}

void AuditValues::check(const AuditEntry& entry) {
  AuditEntry copy = entry;
  edit_all(copy, [&](const std::string& text) {
    if (is_hashed(text) && checked_.find(text) == checked_.end()) {
      check_value(text, entry.seq);
      if (checked_.size() >= kMostKept) {
        checked_.clear();
      }
      checked_.insert(text);
    }
  });
}

void AuditValues::check_value(const std::string& hashed, std::uint64_t seq) {
  Query query = database_.query("SELECT salt, value, erased FROM audit_values WHERE hashed = ?");
  if (!query.bind(hashed).step()) {
    throw Failure(fmt::format("a value of entry {} of the audit has been removed", seq));
  }
  if (query.number(2) != 0) {
    return;
  }
  Salt salt{};
  query.bytes(0, salt);
  if (query.is_null(1) || hashed_text(salt, query.view(1)) != hashed) {
    throw Failure(fmt::format("a value of entry {} of the audit has been altered", seq));
  }
}

void AuditValues::check_erased(std::uint64_t archived_seq) {
  Query query = database_.query(
      "SELECT v.erased, count(*), coalesce(a.action = 'owner.erase', 0), coalesce(json_extract(a.after, '$.values'), 0)"
      " FROM audit_values v LEFT JOIN audit a ON a.seq = v.erased WHERE v.erased > ? GROUP BY v.erased");
  query.bind(archived_seq);
  while (query.step()) {
    if (query.number(2) == 0 || query.number(1) != query.number(3)) {
      throw Failure(fmt::format("{} values of the audit are gone that no erasure accounts for (entry {})",
                                query.number(1), query.number(0)));
    }
  }
}

}  // namespace keyloader
