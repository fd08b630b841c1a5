// keyloader snapshot show, verify, list: looking at snapshot files. Needs no registry and changes nothing.
#include "snapshot.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "directory_owner.hpp"
#include "publish/snapshot_file.hpp"
#include "publish/snapshot_store.hpp"
#include "table.hpp"

namespace keyloader {
namespace {

using apikey::publish::SnapshotFile;

std::filesystem::path file_or_current(const Session& session, const std::string& file) {
  return file.empty() ? session.dir().snapshot_file() : std::filesystem::path{file};
}

apikey::Status open_for(const std::string& named, SnapshotFile& file, const std::filesystem::path& path) {
  const AsCaller of_the_caller(!named.empty());
  return file.open(path);
}

Json json_of(const std::filesystem::path& path, const SnapshotFile& file) {
  const apikey::Meta& meta = file.meta();
  const apikey::Seal& seal = file.seal();
  const auto methods = std::span{meta.digests}.first(meta.digest_count);
  const auto features = std::span{meta.features}.first(meta.feature_count);
  Json signers = Json::array();
  for (const apikey::Signature& signature : std::span{seal.signatures}.first(seal.signature_count)) {
    signers.push_back(hex(signature.key_id));
  }
  Json json{{"path", path.string()},
            {"format", seal.format},
            {"name", meta.name.empty() ? Json(nullptr) : Json(meta.name)},
            {"registry_id", hex(meta.registry_id)},
            {"generation", meta.generation},
            {"created", time_text(meta.created.value)},
            {"builder", meta.builder},
            {"keys", meta.keys},
            {"added", meta.has_added ? Json(meta.added) : Json(nullptr)},
            {"removed", meta.has_removed ? Json(meta.removed) : Json(nullptr)},
            {"digests", Texts(methods.begin(), methods.end())},
            {"requires", Texts(features.begin(), features.end())},
            {"audit_seq", meta.audit_seq == 0 ? Json(nullptr) : Json(meta.audit_seq)},
            {"audit_head", meta.has_audit_head ? Json(hex(meta.audit_head)) : Json(nullptr)},
            {"allow_shrink", meta.allow_shrink},
            {"rolled_back_to", meta.rolled_back_to == 0 ? Json(nullptr) : Json(meta.rolled_back_to)},
            {"length", seal.length},
            {"page_size", seal.page_size},
            {"sha256", hex(seal.sha256)},
            {"signatures", signers}};
  const auto& rows = file.snapshot().row_counts();
  json["rows"] = {{"strings", rows[0]}, {"scopes", rows[1]}, {"plans", rows[2]}, {"owners", rows[3]}};
  return json;
}

std::string words_of(const Json& value) {
  Texts words;
  for (const auto& [name, each] : value.items()) {
    words.push_back(value.is_object() ? fmt::format("{} {}", name, each.dump()) : each.get<std::string>());
  }
  return words.empty() ? "-" : fmt::format("{}", fmt::join(words, ", "));
}

std::string text_of_snapshot(const Json& json) {
  std::vector<Texts> rows;
  for (const char* name :
       {"format", "name", "registry_id", "generation", "created", "builder", "keys", "added", "removed", "digests",
        "audit_seq", "audit_head", "rolled_back_to", "rows", "length", "page_size", "sha256", "signatures"}) {
    const Json& value = json.at(name);
    rows.push_back({name, value.is_string()       ? value.get<std::string>()
                          : value.is_null()       ? "-"
                          : value.is_structured() ? words_of(value)
                                                  : json_text(value)});
  }
  return table_text({json.at("path"), "valid and sealed"}, rows);
}

void show(const Session& session, const std::string& name) {
  const std::filesystem::path path = file_or_current(session, name);
  SnapshotFile file;
  check(open_for(name, file, path), path.string());
  const Json json = json_of(path, file);
  session.report(text_of_snapshot(json), json);
}

void verify(Session& session, const std::string& name) {
  const std::filesystem::path path = file_or_current(session, name);
  SnapshotFile file;
  const apikey::Status status = open_for(name, file, path);
  if (!status.ok()) {
    const std::string sentence = sentence_of(status);
    if (session.is_json) {
      print_out(json_text({{"path", path.string()}, {"ok", false}, {"error", sentence}}) + "\n");
    }
    throw Failure(fmt::format("{}: {}", path.string(), sentence));
  }
  session.report(
      fmt::format("{} is valid: generation {} of registry {}, {} keys", path.string(), file.meta().generation,
                  hex(file.meta().registry_id), file.meta().keys),
      {{"path", path.string()}, {"ok", true}, {"generation", file.meta().generation}, {"keys", file.meta().keys}});
}

void list(const Session& session) {
  Json json = Json::array();
  std::vector<Texts> rows;
  for (const auto& entry : apikey::publish::list_history(session.directory)) {
    SnapshotFile file;
    const bool is_valid = file.open(entry.path).ok();
    const apikey::Meta& meta = file.meta();
    const bool is_rollback = is_valid && meta.rolled_back_to != 0;
    const std::uint64_t bytes = is_valid ? file.seal().length : 0;
    json.push_back({{"generation", entry.generation},
                    {"path", entry.path.string()},
                    {"in_service", entry.is_in_service},
                    {"valid", is_valid},
                    {"created", is_valid ? Json(time_text(meta.created.value)) : Json(nullptr)},
                    {"keys", is_valid ? Json(meta.keys) : Json(nullptr)},
                    {"rolled_back_to", is_rollback ? Json(meta.rolled_back_to) : Json(nullptr)},
                    {"length", bytes},
                    {"sha256", is_valid ? Json(hex(file.seal().sha256)) : Json(nullptr)}});
    const std::string state = entry.is_in_service ? "active" : "kept";
    rows.push_back({std::to_string(entry.generation),
                    !is_valid     ? state + ", damaged"
                    : is_rollback ? fmt::format("{}, rolled back to {}", state, meta.rolled_back_to)
                                  : state,
                    is_valid ? time_text(meta.created.value) : "-", is_valid ? std::to_string(meta.keys) : "-",
                    std::to_string(bytes), entry.path.string()});
  }
  session.report_table({"GENERATION", "STATE", "CREATED", "KEYS", "BYTES", "FILE"}, rows, json, "no snapshots");
}

}  // namespace

void add_snapshot_commands(Command& app, Session& session) {
  Command group = app.add_group("snapshot", "The sealed files nginx reads");
  auto file = std::make_shared<std::string>();

  Command one = group.add("show", "What a snapshot is and holds");
  one.optional_argument("FILE", *file, "A snapshot (default: keys.mdb of the directory)");
  one.footer("  keyloader snapshot show\n  keyloader snapshot show /backup/keys.mdb --json");
  one.read([&session, file] { show(session, *file); });

  Command check_it = group.add("verify", "Check a snapshot as nginx does; one sentence says what is wrong");
  check_it.optional_argument("FILE", *file, "A snapshot (default: keys.mdb of the directory)");
  check_it.footer("  keyloader snapshot verify keys.mdb && echo valid");
  check_it.read([&session, file] { verify(session, *file); });

  Command all = group.add("list", "The snapshots kept in history/, newest first");
  all.footer("  keyloader snapshot list");
  all.read([&session] { list(session); });

  add_snapshot_changes(group, session);
}

}  // namespace keyloader
