// Whoever made a change, for people; and whether the audit is whole. Used by the family
// `audit` (by file: audit.cpp, audit_archive.cpp, audit_revert.cpp), by `usage statement` and `doctor`.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "command.hpp"
#include "registry/registry.hpp"
#include "session.hpp"

namespace keyloader {

// "root", or "alice as root" behind sudo; with an administrator's key "key_… by root".
[[nodiscard]] std::string actor_text(const Json& actor);

// The same with the owner of an administrator's key, where the registry or a deletion still tells it: "carol (key_… by
// root)". Each key is looked up once.
class Actors {
 public:
  explicit Actors(Registry& registry) : registry_(registry) {}
  [[nodiscard]] std::string text(const Json& actor);

  // Empty: nobody knows.
  [[nodiscard]] const std::string& owner_of(const std::string& key);

 private:
  Registry& registry_;
  std::map<std::string, std::string> owners_;  // by the id of the key
};

// RETURNS: where the chain of hashes is broken, as a sentence; empty: nowhere.
[[nodiscard]] std::string audit_problem(Registry& registry);

// The chain of hashes, entry by entry. Throws Failure where one does not follow the one before it.
class AuditChain {
 public:
  // Begins behind an entry that is known to be right; none: before the first of all.
  explicit AuditChain(std::uint64_t seq = 0, const Hash& hash = {});
  void add(const AuditEntry& entry);
  [[nodiscard]] std::uint64_t seq() const { return seq_; }
  [[nodiscard]] const Hash& hash() const { return hash_; }

 private:
  std::uint64_t seq_;
  Hash hash_;
};

using AuditVisit = std::function<void(const AuditEntry&)>;

void add_audit_archive(Command& group, Session& session);
// Each file's entries follow those of the file before; `visit` has each that is right. RETURNS: the chain behind the
// last of them.
[[nodiscard]] AuditChain verify_archives(const Texts& files, const AuditVisit& visit);

void add_audit_revert(Command& group, Session& session);

}  // namespace keyloader
