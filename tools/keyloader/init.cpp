// keyloader init: a new registry, with or without a pepper. keyloader pepper: a later one.
// Must never print a pepper.
#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "delivery.hpp"
#include "directory_owner.hpp"
#include "first_steps.hpp"
#include "prefix.hpp"
#include "registry/fields.hpp"
#include "registry/home.hpp"
#include "secret.hpp"
#include "session.hpp"
#include "take_over.hpp"
#include "terminal.hpp"
#include "user.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct InitOptions {
  std::string pepper;
  std::string group;
  std::string reader_group;
  std::string prefix;
  bool is_sure = false;
  std::string user;
  DeliveryOptions delivery;
};

Json json_of(const Session& session, const RegistryInfo& info, const std::string& pepper) {
  return {{"registry_id", hex(info.id)},
          {"dir", session.directory.string()},
          {"prefix", prefix_of(info)},
          {"pepper", pepper.empty() ? Json(nullptr) : Json(pepper)}};
}

gid_t require_group(const std::string& name) {
  const group* entry = getgrnam(name.c_str());  // NOLINT(concurrency-mt-unsafe): there is one thread
  if (entry == nullptr) {
    throw Failure(fmt::format("there is no group \"{}\" on this machine; make it with `groupadd {}`", name, name));
  }
  return entry->gr_gid;
}

// As --reader-group: nobody but the owner reads the registry.
constexpr const char* kNoGroup = "none";

std::string readers_of(const DataDir& directory) {
  struct stat found {};
  const bool has_readers = stat(directory.registry_file().c_str(), &found) == 0 && (found.st_mode & S_IRGRP) != 0;
  return has_readers ? group_name(found.st_gid) : kNoGroup;
}

void keep_to_owner(const std::filesystem::path& database) {
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string file = database.string() + suffix;
    if (chmod(file.c_str(), S_IRUSR | S_IWUSR) != 0 && errno != ENOENT) {
      fail_errno("set the mode of", file);
    }
  }
}

void warn_of_readers(Registry& registry, const std::string& name) {
  if (registry.peppers().empty()) {
    Session::warn(
        fmt::format("the group {} can read the digests of keys, and no pepper is in use: a key that is short or "
                    "guessable can be found out from its digest. `keyloader pepper create` helps new keys",
                    name));
  }
}

// Who is in the group reads registry.db and usage.db with their journals, and nothing else: the others may pass through
// the directory, but not list it. RETURNS: what it did, as a sentence.
std::string let_read(const DataDir& directory, Registry& registry, const std::string& name) {
  const std::string before = readers_of(directory);
  const bool is_for_group = name != kNoGroup;
  const gid_t gid = is_for_group ? require_group(name) : 0;
  for (const std::filesystem::path& database : {directory.registry_file(), directory.usage_file()}) {
    if (!is_for_group) {
      keep_to_owner(database);
    } else if (std::filesystem::exists(database)) {
      let_group_read(database, gid);
    }
  }
  constexpr mode_t closed = S_ISGID | S_IRWXU | S_IRGRP | S_IXGRP;
  if (chmod(directory.path().c_str(), is_for_group ? closed | S_IXOTH : closed) != 0) {
    fail_errno("set the mode of", directory.path());
  }
  if (before != name && is_at_home(registry.info().home, registry.here())) {
    const auto change = registry.begin_change();
    change->let_read(before, name);
    change->commit();
  }
  if (!is_for_group) {
    return "nobody but the owner of the directory can read registry.db and usage.db";
  }
  warn_of_readers(registry, name);
  return fmt::format(
      "the group {} can read registry.db and usage.db; `keyloader init --reader-group {}` takes that back", name,
      kNoGroup);
}

std::string take_over_text(const Session& session, const InitOptions& options, const TakeOver& taken) {
  return taken.given == 0
             ? fmt::format("{} and what is in it belong to {} already", session.directory.string(), options.user)
             : fmt::format("gave {} files and directories in {} to {}", taken.given, session.directory.string(),
                           options.user);
}

// Who owned the directory stands in the audit, but not in that of a copy, which cannot be changed. One that was given
// away by a run that came to no end has another owner by its last entry than it has.
void record_owner(const DataDir& directory, const std::string& user, const TakeOver& taken) {
  const auto registry = directory.open_registry();
  const std::string from = user_name(taken.from);
  std::string known;
  registry->each_audit_entry({.action = "registry.owner", .most = 1},
                             [&](const AuditEntry& entry) { known = string_of(field_of(entry.after, "user")); });
  const bool is_known = known.empty() || known == user;
  if ((from != user || !is_known) && is_at_home(registry->info().home, registry->here())) {
    const auto change = registry->begin_change();
    change->give_directory(from != user ? from : known, user);
    change->commit();
  }
}

// What is there stays as it is, but what was not published is.
void init_again(const Session& session, const InitOptions& options, const std::optional<TakeOver>& taken) {
  const auto registry = session.open_registry();
  if (!options.pepper.empty()) {
    const std::vector<Pepper> peppers = registry->peppers();
    if (peppers.empty() || !peppers.front().is_current || peppers.front().id != options.pepper) {
      throw Failure(fmt::format("{} exists already; a further pepper is made by `keyloader pepper create {}`",
                                session.dir().registry_file().string(), options.pepper));
    }
  }
  const std::string readers =
      options.reader_group.empty() ? std::string{} : let_read(session.dir(), *registry, options.reader_group);
  const RegistryInfo info = registry->info();
  if (!options.prefix.empty() && options.prefix != info.prefix) {
    throw Failure(
        fmt::format("{} exists already, and its keys begin with {}; `keyloader registry set --prefix {}` "
                    "changes it",
                    session.dir().registry_file().string(), prefix_of(info), options.prefix));
  }
  Json json = json_of(session, info, options.pepper);
  std::string text =
      fmt::format("registry {} is in {} already; it stays as it is", hex(info.id), session.directory.string());
  if (!readers.empty()) {
    text = fmt::format("{}\n{}", readers, text);
    json["reader_group"] = options.reader_group;
  }
  if (taken) {
    text = fmt::format("{}\n{}", take_over_text(session, options, *taken), text);
    json["user"] = options.user;
    json["given"] = taken->given;
  }
  report(session, text, std::move(json), deliver_nothing(session, *registry, options.delivery));
}

// A registry.db that was begun and never finished is no registry yet.
bool has_registry(const DataDir& directory) {
  std::error_code error;
  if (!std::filesystem::exists(directory.registry_file(), error)) {
    return false;
  }
  try {
    return directory.open_registry() != nullptr;
  } catch (const Failure&) {
    return false;
  }
}

// A second registry beside a snapshot of another one: nginx would go on with the old keys and refuse the new ones.
void refuse_beside_snapshot(const DataDir& directory, const InitOptions& options) {
  std::error_code error;
  if (options.delivery.is_quiet || std::filesystem::exists(directory.registry_file(), error) ||
      !std::filesystem::exists(directory.snapshot_file(), error)) {
    return;
  }
  throw Failure(fmt::format(
      "{} holds a snapshot (keys.mdb), but no registry: it is a node, or its registry was lost. A new registry would "
      "be "
      "empty and another one: nginx would refuse what it publishes and go on with the old keys, which nobody could "
      "revoke. Restore registry.db from a backup; or, to begin anew, `keyloader init --no-publish`, import the keys, "
      "and `keyloader publish --take-over --reason …`",
      directory.path().string()));
}

void init_dry(const Session& session, const InitOptions& options) {
  const bool is_there = has_registry(session.dir());
  report(session,
         fmt::format("{} in {}{}{}",
                     is_there ? "the registry that is there already stays as it is," : "created a registry",
                     session.directory.string(),
                     options.user.empty() ? "" : fmt::format("; gave the directory to {}", options.user),
                     options.reader_group.empty() ? "" : fmt::format("; readers: {}", options.reader_group)),
         {{"dir", session.directory.string()},
          {"exists", is_there},
          {"user", options.user.empty() ? Json(nullptr) : Json(options.user)},
          {"pepper", options.pepper.empty() ? Json(nullptr) : Json(options.pepper)}},
         dry_run());
}

// Everything in the directory is given away, so it has to be one of ours, or hold nothing else yet.
void require_own_directory(const DataDir& directory) {
  static constexpr std::array<std::string_view, 4> ours = {"history", "nodes", "peppers", "publish.lock"};
  std::error_code error;
  if (std::filesystem::exists(directory.registry_file(), error) ||
      std::filesystem::exists(directory.snapshot_file(), error)) {
    return;
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory.path(), error)) {
    const std::string name = entry.path().filename().string();
    if (std::find(ours.begin(), ours.end(), name) == ours.end()) {
      throw Failure(fmt::format(
          "{} holds {}, and neither registry.db nor keys.mdb: it is no directory of keyloader, so it is not "
          "given away. Name another one with --dir",
          directory.path().string(), name));
    }
  }
}

// The one thing that is left for root to do; after it keyloader is the owner of the directory, and may give what is in
// it to the groups that were named.
std::optional<TakeOver> give_to_user(const Session& session, const InitOptions& options) {
  std::vector<gid_t> groups;
  if (!options.reader_group.empty() && options.reader_group != kNoGroup) {
    groups.push_back(require_group(options.reader_group));
  }
  const auto workers = workers_group(options.group);
  if (workers) {
    groups.push_back(*workers);
  }
  std::optional<TakeOver> taken;
  if (!options.user.empty()) {
    if (!is_started_by_root()) {
      throw Failure(
          fmt::format("only root can give {} to another user; run it as root: `sudo keyloader init --user {}`",
                      session.directory.string(), options.user));
    }
    require_own_directory(session.dir());
    const uid_t user = require_user(options.user, workers ? group_name(*workers) : "www-data");
    if (options.delivery.is_dry_run) {
      require_way_to(session.directory, user, groups);
    } else {
      taken = take_over(session.directory, user, groups);
    }
  }
  become_owner(session.directory, KeptRight::read, groups);
  return taken;
}

// Another user says nothing of the group.
bool keeps_group(const InitOptions& options, const std::optional<TakeOver>& taken) {
  return taken && !taken->is_new && options.group.empty();
}

void make(const DataDir& directory, const std::string& group) {
  std::string warning = directory.make(group);
  if (warning.empty()) {
    warning = unreachable_for_workers(directory);
  }
  if (!warning.empty()) {
    Session::warn(warning);
  }
}

void report_node(const Session& session, const InitOptions& options, const std::optional<TakeOver>& taken) {
  Json json{{"dir", session.directory.string()}, {"user", options.user}};
  if (!taken) {
    report(session, fmt::format("gave {} to {}", session.directory.string(), options.user), json, dry_run());
    return;
  }
  if (!keeps_group(options, taken)) {
    make(session.dir(), options.group);
  }
  json["given"] = taken->given;
  session.report(take_over_text(session, options, *taken), json);
}

// What a node that only installs snapshots has is given away, too; there is no registry to make, nor an audit.
bool is_node_taken_over(const Session& session, const InitOptions& options) {
  std::error_code error;
  return !options.user.empty() && !options.delivery.is_quiet &&
         !std::filesystem::exists(session.dir().registry_file(), error) &&
         std::filesystem::exists(session.dir().snapshot_file(), error);
}

// Of a new registry, before anything is made. An answer of nothing is the default, which init warns of.
std::string chosen_prefix(const DataDir& directory, const InitOptions& options) {
  std::error_code error;
  if (!options.prefix.empty() || options.delivery.is_dry_run ||
      std::filesystem::exists(directory.registry_file(), error)) {
    return options.prefix;
  }
  return ask_for(fmt::format("How are keys to begin? A name of your own tells everybody whose they are, as acme [{}]",
                             kDefaultPrefix));
}

void init(const Session& session, InitOptions options) {
  check(options.delivery);
  const DataDir directory = session.dir();
  const bool is_node = is_node_taken_over(session, options);
  if (!is_node) {
    refuse_beside_snapshot(directory, options);
    options.prefix = chosen_prefix(directory, options);
  }
  if (!options.prefix.empty()) {
    check_prefix(options.prefix, options.is_sure);
  }
  const std::optional<TakeOver> taken = give_to_user(session, options);
  if (is_node) {
    report_node(session, options, taken);
    return;
  }
  if (options.delivery.is_dry_run) {
    init_dry(session, options);
    return;
  }
  const bool is_there = has_registry(directory);
  if (is_there && taken) {
    record_owner(directory, options.user, *taken);
  }
  if (!is_there || !keeps_group(options, taken)) {
    make(directory, options.group);
  }
  if (is_there) {
    init_again(session, options, taken);
    return;
  }
  const auto registry = directory.create_registry([&](Change& change) {
    if (!options.pepper.empty()) {
      ensure_pepper_file(directory, options.pepper);
      change.create(Pepper{.id = options.pepper, .created = wall_clock(), .is_current = true});
    }
    if (!options.prefix.empty()) {
      change.set_prefix(options.prefix);
    }
  });
  const std::string readers =
      options.reader_group.empty() ? std::string{} : let_read(directory, *registry, options.reader_group);
  const RegistryInfo info = registry->info();
  warn_of_prefix(prefix_of(info));
  const Json steps = first_steps(session, options.pepper);
  Json json = json_of(session, info, options.pepper);
  json["next"] = steps;
  if (!readers.empty()) {
    json["reader_group"] = options.reader_group;
  }
  report(session,
         fmt::format("created registry {} in {}{}{}", hex(info.id), directory.path().string(),
                     readers.empty() ? "" : "\n", readers),
         std::move(json), deliver_nothing(session, *registry, options.delivery));
  if (!session.is_json) {
    session.report(first_steps_text(steps), nullptr);
  }
}

void create_pepper(const Session& session, const std::string& id, const DeliveryOptions& delivery) {
  const DataDir directory = session.dir();
  const auto registry = session.open_registry();
  const auto change = registry->begin_change();
  Texts methods = registry->methods_in_use();
  const std::string method = "hmac-sha256:" + id;
  for (const Pepper& pepper : registry->peppers()) {
    if (pepper.id == id && pepper.is_current && std::filesystem::exists(directory.peppers() / id)) {
      session.report(fmt::format("pepper {} exists already, and new keys use it", id), to_json(pepper));
      return;
    }
    if (pepper.id == id) {
      throw Failure(fmt::format("pepper {} exists already; give the new one another name, such as its year", id));
    }
  }
  if (methods.size() >= apikey::kMaxDigestMethods) {
    throw Failure(
        fmt::format("keys use {} digest methods already ({}), a snapshot holds no more; delete the keys of the oldest",
                    methods.size(), fmt::join(methods, ", ")));
  }
  const Pepper pepper{.id = id, .created = wall_clock(), .is_current = true};
  change->create(pepper);
  if (delivery.is_dry_run) {
    report(session, fmt::format("created pepper {}; new keys use it", id), to_json(pepper),
           deliver(session, *registry, *change, delivery));
    return;
  }
  const bool is_new = ensure_pepper_file(directory, id);
  change->commit();
  session.report(
      fmt::format("{} pepper {}; new keys use it. Before the next key add it to nginx's configuration and reload it: "
                  "apikey_store … pepper={}:{};",
                  is_new ? "created" : "took the file of", id, id, (directory.peppers() / id).string()),
      to_json(pepper));
}

void list_peppers(const Session& session) {
  Json list = Json::array();
  std::string text;
  for (const Pepper& pepper : session.open_registry()->peppers()) {
    list.push_back(to_json(pepper));
    text += fmt::format("{}{:<32} {} {}", text.empty() ? "" : "\n", pepper.id, time_text(pepper.created),
                        pepper.is_current ? "current" : "");
  }
  session.report(text.empty() ? "no pepper: keys are kept as plain SHA-256" : text, list);
}

}  // namespace

void add_init_command(Command& app, Session& session) {
  auto options = std::make_shared<InitOptions>();
  Command command = app.add("init", "Make the directory and a new, empty registry");
  command.option("--pepper", options->pepper, "ID",
                 "Keep keys as HMAC-SHA-256 with a secret of this name, made in peppers/");
  command.option("--prefix", options->prefix, "PREFIX", "How keys begin: 2-16 of a-z 0-9 (default: ak)");
  command.flag("--yes", options->is_sure, "Allow a prefix that another vendor uses");
  command.option("--group", options->group, "GROUP", "Group of nginx's workers (default: www-data or nginx)");
  command.option("--user", options->user, "USER",
                 "Give the directory and what is in it to this user; only root can do that");
  command.option("--reader-group", options->reader_group, "GROUP",
                 "Let this group read the registry: key list, audit list …; not change it. none takes it back");
  command.tries(options->delivery);
  command.delivers(options->delivery);
  command.footer(
      "The directory gets mode 2750 and nginx's group; registry.db and peppers are readable by you alone.\n"
      "Once the directory is another user's, keyloader that root starts works as that user.\n"
      "A pepper is a file of 64 hex digits (its bytes less the line end are the pepper); an existing one is kept.\n\n"
      "  keyloader init --prefix acme\n"
      "  sudo keyloader init --user apikey\n"
      "  keyloader --dir /srv/keys init --pepper 2026");
  command.run_on_machine(session, [&session, options] { init(session, *options); });
}

void add_pepper_commands(Command& app, Session& session) {
  Command group = app.add_group("pepper", "Secrets that digests are made with");
  auto id = std::make_shared<std::string>();
  Command create = group.add("create", "Make a pepper; new keys use it, old keys keep theirs");
  create.argument("ID", *id, "Its name: a-z 0-9 _ -");
  create.footer("A file peppers/ID that is there already is taken as it is.\n\n  keyloader pepper create 2027");
  auto delivery = std::make_shared<DeliveryOptions>();
  create.tries(*delivery);
  create.run_on_machine(session, [&session, id, delivery] { create_pepper(session, *id, *delivery); });
  Command list = group.add("list", "Which peppers there are, the current one first");
  list.footer("  keyloader pepper list --json");
  list.read([&session] { list_peppers(session); });
}

}  // namespace keyloader
